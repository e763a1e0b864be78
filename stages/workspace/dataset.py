"""A data set: its splits, its images and their files."""

import csv
from pathlib import Path

from rela.data.beton.reader import Beton, open_beton
from rela.errors import ChoiceError, DataError
from rela.pipeline.artifact import Artifact
from rela.pipeline.files import regular_file

_INDEX_COLUMNS = ("index", "label", "path", "source_sha256", "stored_sha256")


def index_path(dataset: Artifact, split: str) -> Path:
    """The CSV of one split, which names the file of every row of its beton."""
    return dataset.path / f"{split}.csv"


def read_index(dataset: Artifact, split: str) -> list[dict[str, str]]:
    """The rows of a split's CSV: index, label, path, source_sha256, stored_sha256."""
    path = index_path(dataset, split)
    try:
        with open(
            path, encoding="utf-8", errors="surrogateescape", newline="", opener=regular_file
        ) as file:
            rows = list(csv.DictReader(file))
    except csv.Error as error:
        raise DataError(f"{path} is damaged ({error}); convert the images again") from error
    if any(None in row or None in row.values() or set(row) != set(_INDEX_COLUMNS) for row in rows):
        raise DataError(
            f"{path} is damaged: expected the columns {', '.join(_INDEX_COLUMNS)}; convert the images "
            "again"
        )
    return rows


def beton_path(dataset: Artifact, split: str) -> Path:
    """The beton of one split; raises ChoiceError if the data set has no such split."""
    splits = dataset.manifest.content["splits"]
    if split not in splits:
        raise ChoiceError(
            f"data set {dataset.name} has no {split} split, only {', '.join(splits)}; convert its images "
            "with --val-fraction 0.1 and another --name, or from a folder with train/ and val/"
        )
    return dataset.path / f"{split}.beton"


def open_split(dataset: Artifact, split: str) -> Beton:
    """The beton of one split; raises DataError if it is damaged, or not the one of the manifest."""
    path, content = beton_path(dataset, split), dataset.manifest.content
    beton = open_beton(path, len(content["class_names"]))
    expected = content["splits"][split]["num_images"]
    if len(beton) != expected:
        raise DataError(
            f"{path} holds {len(beton)} images, its manifest says {expected}; convert the images again"
        )
    return beton


def images_sha256(dataset: Artifact, split: str) -> str:
    """One digest for the ordered images of a split, labels apart."""
    beton_path(dataset, split)
    return str(dataset.manifest.content["splits"][split]["images_sha256"])


_LARGEST_DEFAULT_SIZE = 224


def default_image_size(dataset: Artifact) -> int:
    """The data set's median shorter side in pixels, at most 224."""
    side = dataset.manifest.content["splits"]["train"]["median_shorter_side_pixels"]
    return min(int(side), _LARGEST_DEFAULT_SIZE)
