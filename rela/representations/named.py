"""Features with the paths of their images: as a mapping, as a PyTorch data set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rela.result import Result

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset


@dataclass(frozen=True, eq=False, repr=False)
class NamedRepresentations(Result, Mapping[str, NDArray[np.floating]]):
    """A mapping from the path of an image to its vector [D], in the order of the data set.

    - `array` float16 or float32 [N, D], memory-mapped and read-only; row i is image i;
    - `paths`: the N files, relative to the folder that was converted;
    - `labels` int64 [N], indices of `class_names`; -1 without a class;
    - `attributes` of the file: prior, preprocessing, data set, split;
    - `crops_per_image`: K for K random crops of each image; then `array` is [N · K, D], image i starts at
      row i · K, and vectors are [K, D]. 0 for one centre crop.
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

    def shown(self) -> dict[str, Any]:
        """The prior, the images and the shape."""
        rows, width = self.array.shape
        return {
            "prior": self.attributes.get("prior"),
            "data set": self.attributes.get("dataset"),
            "split": self.attributes.get("split"),
            "images": len(self),
            "rows": rows,
            "width": width,
            "type": str(self.array.dtype),
        }

    def vector(self, index: int) -> NDArray[np.floating]:
        """The vector of image `index`: [D], or [K, D] of K crops. A read-only view."""
        if not self.crops_per_image:
            return np.asarray(self.array[index])
        first = range(len(self))[index] * self.crops_per_image
        return np.asarray(self.array[first : first + self.crops_per_image])

    def torch_dataset(self) -> "Dataset[tuple[Tensor, int]]":
        """A map-style PyTorch data set: item i is (vector i as float32 [D] or [K, D], its label)."""
        import torch
        from torch import Tensor
        from torch.utils.data import Dataset

        representations = self

        class VectorDataset(Dataset[tuple[Tensor, int]]):
            def __len__(self) -> int:
                return len(representations)

            def __getitem__(self, index: int) -> tuple[Tensor, int]:
                vector = representations.vector(index).astype(np.float32)
                return torch.from_numpy(vector), int(representations.labels[index])

            def __reduce__(self) -> tuple[Any, ...]:
                """Let workers under spawn unpickle this class, which no module has."""
                return NamedRepresentations.torch_dataset, (representations,)

        return VectorDataset()

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.paths)}
