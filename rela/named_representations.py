"""Representations together with the files they are of: path → vector."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rela.vector_dataset import VectorDataset


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

    def torch_dataset(self) -> "VectorDataset":
        """A map-style PyTorch data set of (vector float32, label int)."""
        from rela.vector_dataset import VectorDataset

        return VectorDataset(self)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.paths)}
