"""A manifest to write and to change."""

from rela.pipeline.manifest import Manifest

MANIFEST = Manifest(
    kind="dataset",
    fingerprint="ab" * 32,
    inputs={"train": "cd" * 32},
    parameters={"seed": 3, "share": 0.25, "names": ["ant", "bee"], "max_side": None, "on": True},
    content={"num_images": 12},
    file_sha256={"train.beton": "ef" * 32},
    provenance={"host": "here"},
)
