"""Maps of features: k × k positions per image, projected to a few components and stored in one or two bytes.

The projection (PCA, standardised, see `rela.representations.projection`) is shared by all positions. It is
fitted once, to some of the images, and kept beside the maps.
"""

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rela.data.beton.reader import Beton
from rela.errors import DataError
from rela.models.preprocessing import Preprocessing
from rela.pipeline.manifest import remedy
from rela.representations.matrix_file import open_matrix
from rela.representations.projection import Projection, fit_projection

MAP_DTYPES = ("int8", "float16")
_LARGEST_INT8 = 127
_FITTED_IMAGES, _FITTED_VALUES = 512, 1 << 26
_DIGEST_BYTES = 32


def fitted_images(keys: NDArray[np.bytes_], num_values: int) -> NDArray[np.int64]:
    """The images that the projection is fitted to, by `keys` [N], digests of each; `num_values` of a map.

    Those with the smallest digests: like drawn at random, but whatever their order, and mostly the same after
    a few images were added or removed. Copies count once.
    """
    count = min(_FITTED_IMAGES, max(2, _FITTED_VALUES // num_values))
    return np.unique(keys, return_index=True)[1][:count]


@dataclass(frozen=True)
class MapFormat:
    """How a map [k, k, C] is stored: [k, k, d] standardised components.

    - `side`: k; `projection`: C → d components, each with mean 0 and variance 1 over the fitted positions;
    - `step` float32 [d]: int8 value · step is the component; None for float16.
    """

    side: int
    projection: Projection
    step: NDArray[np.float32] | None

    @classmethod
    def fit(cls, positions: NDArray[np.floating], side: int, width: int, dtype: str) -> "MapFormat":
        """Fit to positions [P, C] of some maps; at most `width` components, of type `dtype`."""
        projection = fit_projection(positions, width)
        if dtype != "int8":
            return cls(side, projection, None)
        largest = np.abs(projection.apply(positions)).max(axis=0)
        return cls(side, projection, (largest / _LARGEST_INT8).astype(np.float32))

    @property
    def width(self) -> int:
        """d."""
        return self.projection.width

    @property
    def num_features(self) -> int:
        """k² · C, of the network."""
        return self.side**2 * len(self.projection.mean)

    @property
    def columns(self) -> int:
        """k² · d, of a row."""
        return self.side**2 * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """k, k, d."""
        return self.side, self.side, self.width

    @property
    def dtype(self) -> str:
        """`int8` or `float16`."""
        return "float16" if self.step is None else "int8"

    @property
    def attributes(self) -> dict[str, str]:
        """What a file of maps says of itself."""
        shape = {"map_shape": json.dumps(self.shape)}
        return (
            shape if self.step is None else {**shape, "int8_step": json.dumps(self.step.tolist())}
        )

    def project(self, features: Tensor) -> Tensor:
        """[B, k² · C] float32 → [B, k² · d] float32, on the same device."""
        scaled = self.projection.components.T / self.projection.scale
        weight = torch.from_numpy(scaled).to(features.device, torch.float32)
        mean = torch.from_numpy(self.projection.mean).to(features.device, torch.float32)
        positions = features.view(len(features), self.side**2, -1)
        return torch.flatten((positions - mean) @ weight, 1)

    def stored(self, values: NDArray[np.float32]) -> NDArray[np.int8 | np.float16]:
        """Components [B, k² · d] in the stored type; beyond the range of the fitted maps, int8 is its end."""
        if self.step is None:
            return values.astype(np.float16)
        steps = values.reshape(-1, self.width) / self.step
        rounded = np.clip(np.rint(steps), -_LARGEST_INT8, _LARGEST_INT8)
        whole: NDArray[np.int8] = rounded.astype(np.int8).reshape(values.shape)
        return whole

    def restored(self, rows: Tensor) -> Tensor:
        """The inverse of `stored`: rows [B, k² · d] → maps float32 [B, d, k, k]."""
        maps = rows.view(len(rows), self.side, self.side, self.width).float()
        if self.step is not None:
            maps = maps * torch.from_numpy(self.step).to(maps.device)
        return maps.movedim(-1, 1)

    def to_bytes(self) -> bytes:
        """With a digest, for `from_bytes`."""
        from safetensors.numpy import save

        known = self.projection
        tensors = {
            "side": np.array(self.side),
            "mean": known.mean, "components": known.components, "scale": known.scale,
            "eigenvalues": known.eigenvalues.copy(), "num_dropped": np.array(known.num_dropped),
            **({} if self.step is None else {"step": self.step}),
        }  # fmt: skip
        content = save(tensors)
        return hashlib.sha256(content).digest() + content

    @classmethod
    def from_bytes(cls, stored: bytes) -> "MapFormat":
        """Raises DataError if they are damaged."""
        from safetensors.numpy import load

        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            raise DataError("the projection of the maps is damaged; embed them again")
        found = load(content)
        projection = Projection(
            found["mean"], found["components"], found["scale"], found["eigenvalues"],
            int(found["num_dropped"]),
        )  # fmt: skip
        return cls(int(found["side"]), projection, found.get("step"))


@dataclass(frozen=True)
class MapTargets:
    """Maps that stage 1 regresses, memory-mapped: `values` [R, k² · d], a row per image, or per crop of it.

    - `crops` uint16 [N, K, 5] as in `rela.data.crops`: row i · K + k shows crop k of image i as the model
      sees it, mirrored or not;
    - without, a row shows the central crop of the prior's `preprocessing`, never mirrored.
    """

    values: Tensor
    format: MapFormat
    crops: NDArray[np.uint16] | None
    preprocessing: Preprocessing

    def window(self, beton: Beton) -> NDArray[np.float64]:
        """What the maps show of every image: top, left, height, width in pixels, float64 [N, 4].

        The arithmetic of torchvision's Resize and CenterCrop, as in rela.data.kernels.samples.
        """
        heights, widths = beton.heights.astype(np.int64), beton.widths.astype(np.int64)
        resize, crop = self.preprocessing.resize, self.preprocessing.crop
        is_tall = widths <= heights
        full_height = np.where(is_tall, resize * heights // widths, resize)
        full_width = np.where(is_tall, resize, resize * widths // heights)
        tops, lefts = np.rint((full_height - crop) / 2), np.rint((full_width - crop) / 2)
        y, x = heights / full_height, widths / full_width  # stored pixels in one of the prior's
        return np.stack([tops * y, lefts * x, crop * y, crop * x], axis=1)


def open_maps(
    path: Path, format_: MapFormat, preprocessing: Preprocessing, num_images: int
) -> MapTargets:
    """Map targets over the memory-mapped file, whose digest was compared before.

    Raises DataError for a file of another shape.
    """
    matrix = open_matrix(path, verify=False)
    num_rows = num_images * (1 if matrix.crops is None else matrix.crops.shape[1])
    expected = num_rows, format_.columns
    if matrix.values.shape != expected or matrix.values.dtype != np.dtype(format_.dtype):
        raise DataError(
            f"{path} contains {list(matrix.values.shape)} of {matrix.values.dtype}, expected "
            f"{list(expected)} of {format_.dtype}; {remedy(path.parent)}"
        )
    matrix.values.flags.writeable = False
    with warnings.catch_warnings():  # the mapping is read-only and never written
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        values = torch.from_numpy(matrix.values)
    return MapTargets(values, format_, matrix.crops, preprocessing)
