"""Features with the names of their images: a mapping from path to vector, a torch data set, one HDF5 file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from rela.representations.matrix_file import ROWS_PER_PART
from rela.representations.safe_hdf5 import KeptErrorFile

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset


@dataclass(frozen=True, eq=False)
class NamedRepresentations(Mapping[str, NDArray[np.floating]]):
    """A mapping from the path of an image to its vector [D], in the order of the data set.

    - `array` float16 or float32 [N, D], memory-mapped and read-only; row i is image i;
    - `paths`: the N files, relative to the folder that was converted;
    - `labels` int64 [N], numbers of `class_names`; -1 without a class;
    - `attributes`: what the file says of itself: prior, preprocessing, data set, split;
    - `crops_per_image`: K random crops of each image, then `array` is [N · K, D], those of image i from
      row i · K on, and vectors are [K, D]; 0 for one centre crop.
    """

    array: NDArray[np.floating]
    paths: list[str]
    labels: NDArray[np.int64]
    class_names: list[str]
    attributes: dict[str, Any]
    crops_per_image: int = 0

    def __getitem__(self, path: str) -> NDArray[np.floating]:
        return self.vector(self._rows[path])

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        rows, width = self.array.shape
        prior = self.attributes.get("prior", "?")
        return f"<{rows:,} × {width} representations of {len(self):,} images by {prior}>"

    def vector(self, index: int) -> NDArray[np.floating]:
        """That of image `index`: [D], or [K, D] of several crops. A view, read-only."""
        if not self.crops_per_image:
            return np.asarray(self.array[index])
        first = range(len(self))[index] * self.crops_per_image
        return np.asarray(self.array[first : first + self.crops_per_image])

    def torch_dataset(self) -> "Dataset[tuple[Tensor, int]]":
        """A map-style PyTorch data set: item i is (vector i, float32 [D] or [K, D] of K crops; its label)."""
        import torch
        from torch import Tensor
        from torch.utils.data import Dataset

        class VectorDataset(Dataset[tuple[Tensor, int]]):
            def __init__(self, representations: NamedRepresentations) -> None:
                self.representations = representations

            def __len__(self) -> int:
                return len(self.representations)

            def __getitem__(self, index: int) -> tuple[Tensor, int]:
                vector = self.representations.vector(index).astype(np.float32)
                return torch.from_numpy(vector), int(self.representations.labels[index])

        return VectorDataset(self)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.paths)}


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
