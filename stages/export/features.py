"""Features of a run or of an embedded prior, with paths and labels → a file or folder."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.pipeline import Say
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.locks import in_use
from rela.pipeline.manifest import Manifest, provenance
from rela.priors import PriorIdentity, PriorRequest
from rela.stages.embed.embed import embed
from rela.stages.export.destination import KIND, num_bytes_of, writing
from rela.stages.export.weights import description_of
from rela.stages.priors.find import with_names
from rela.stages.settings import EmbedSettings, ExportSettings
from rela.stages.snippets import features_snippet
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    from rela.representations.feature_files import Write


def features_of_run(
    workspace: Workspace, run: Run, identity: PriorIdentity, settings: ExportSettings,
    embedding: EmbedSettings, say: Say,
) -> tuple[DataSet, dict[str, Representations], dict[str, Any]]:  # fmt: skip
    """(data set, features of every split by the run as a prior, embedded or cached, their description)."""
    dataset = workspace.dataset_for(run, settings.dataset)
    found = {}
    for split in dataset.splits:
        request = PriorRequest(f"run:{run.name}")
        made = embed(workspace, dataset, request, embedding, split, say=say).artifact
        assert made is not None, "an export is never sharded"
        found[split] = made
    return dataset, found, description_of(run, identity)


def write_features(
    dataset: DataSet, found: Mapping[str, Representations], description: Mapping[str, Any],
    path: Path, settings: ExportSettings,
) -> tuple[str, int]:  # fmt: skip
    """Write them; returns the Python that reads them, and the size in bytes."""
    write = _writer(settings.to)
    attributes = {
        **description,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
    }
    plain = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in attributes.items()}
    keys = {split: each.fingerprint for split, each in found.items()}
    manifest = Manifest(
        kind=KIND,
        fingerprint=fingerprint({"to": settings.to, "features": keys}),
        inputs=keys,
        parameters={"to": settings.to},
        content=attributes,
        provenance=provenance(),
    )
    with ExitStack() as held:
        held.enter_context(in_use(dataset.path, *(each.path for each in found.values())))
        splits = {split: with_names(dataset, split, each) for split, each in found.items()}
        with writing(path, settings, manifest) as temporary:
            write(temporary, splits, plain)
            num_bytes = num_bytes_of(temporary)  # another job may replace it as soon as it is there
    return features_snippet(settings.to, path.resolve(), next(iter(splits))), num_bytes


def _writer(to: str) -> "Write":
    """The function that writes this format; raises ChoiceError if it needs an extra that is missing."""
    from rela.representations import feature_files

    if to == "parquet":
        feature_files.require_pyarrow()
    if to == "faiss":
        feature_files.require_faiss()
    return {
        "hdf5-features": feature_files.write_hdf5,
        "parquet": feature_files.write_parquet,
        "npy": feature_files.write_npy,
        "faiss": feature_files.write_faiss,
    }[to]
