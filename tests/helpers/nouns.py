"""Data sets and runs as their manifests describe them; nothing lies on a disk."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rela.pipeline.manifest import Manifest
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import Run
from rela.training.settings import TrainSettings


def dataset_of(num_images: int) -> DataSet:
    """Labelled images of two classes, 64 pixels."""
    split = {
        "num_images": num_images, "num_jpeg": 0, "num_raw": num_images, "median_shorter_side_pixels": 64,
        "images_per_class": [], "images_sha256": "", "labels_sha256": "",
    }  # fmt: skip
    content = {
        "class_names": ["a", "b"], "labelled": True, "splits": {"train": split}, "bad_images": [],
        "sources_sha256": "",
    }  # fmt: skip
    manifest = Manifest("dataset", "", content=content, provenance={"seconds": 1.0})
    return DataSet(Path("digits"), manifest)


def run_of(name: str, settings: TrainSettings, **content: Any) -> Run:
    """A run on `pictures` without a prior, unless `content` says otherwise."""
    known = {"dataset": "pictures", "prior": None, "handover_step": None, "num_steps": 1}
    manifest = Manifest(
        "run",
        name,
        inputs={"dataset": "", "images": ""},
        parameters=asdict(settings),
        content={**known, **content},
        provenance={"seconds": 1.0},
    )
    return Run(Path(name), manifest)
