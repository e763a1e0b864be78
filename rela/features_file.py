"""Features of whole data sets in one HDF5 file that needs no other: values, file names, labels, classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from rela.kept_error_file import KeptErrorFile
from rela.named_representations import NamedRepresentations
from rela.representations import ROWS_PER_PART

_LAYOUT = (
    "one group per split with `features` [N, D], `paths` [N] (files, relative to the folder of images), "
    "`labels` [N] (rows of /class_names; -1: none); row i of each is the same image"
)


def write_features(
    path: Path, splits: Mapping[str, NamedRepresentations], attributes: Mapping[str, Any]
) -> None:
    """Write `SPLIT/features`, `SPLIT/paths`, `SPLIT/labels` and `class_names`, with attributes.

    `features` keep their type and lie contiguously, texts are UTF-8. The bytes are a function of the
    arguments. Raises OSError if they cannot be written, with the file left behind unfinished.
    """
    with KeptErrorFile(path, "w+") as raw:
        with h5py.File(raw, "w", libver="v110", track_order=False) as file:
            class_names = next(iter(splits.values())).class_names
            _write_texts(file, "class_names", class_names)
            for name, value in sorted({**attributes, "layout": _LAYOUT}.items()):
                file.attrs[name] = value
            for split, found in sorted(splits.items()):
                group = file.create_group(split)
                values = group.create_dataset(
                    "features", found.array.shape, found.array.dtype, track_times=False
                )
                for start in range(0, len(found.array), ROWS_PER_PART):
                    values[start : start + ROWS_PER_PART] = found.array[
                        start : start + ROWS_PER_PART
                    ]
                    raw.raise_error()
                _write_texts(group, "paths", found.paths)
                group.create_dataset("labels", data=found.labels, track_times=False)
        raw.raise_error()


def _write_texts(group: Any, name: str, texts: list[str]) -> None:
    """Names of files may hold bytes that are no UTF-8; they are written as they are."""
    stored = [text.encode("utf-8", "surrogateescape") for text in texts]
    group.create_dataset(
        name, (len(texts),), h5py.string_dtype(), data=stored or None, track_times=False
    )
