"""The file of targets for stage 1: one row per image, or per crop of an image."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rela.data.memory import blocks
from rela.errors import DataError
from rela.representations.matrix_file import ROWS_PER_PART, open_matrix, write_matrix
from rela.representations.projection import Projection

_DTYPE = "float16"


@dataclass(frozen=True)
class Targets:
    """Regression targets of stage 1: `values` float16 [N, d], one row per image.

    With `crops` (uint16 [N, K, 5], see rela.data.crops) there are K rows per image, [N · K, d].
    """

    values: Tensor
    crops: NDArray[np.uint16] | None = None


def write_targets(
    path: Path, representations: NDArray[np.floating], projection: Projection,
    attributes: dict[str, Any], crops: NDArray[np.uint16] | None = None, device: str = "cpu",
) -> None:  # fmt: skip
    """Project representations [N, D] to targets [N, d] float16, part by part, into `path`."""

    def parts() -> Iterator[NDArray[np.float32]]:
        for start, rows in blocks(representations, ROWS_PER_PART):
            values = projection.standardised(rows, device)
            if not np.isfinite(values).all():
                raise DataError(f"targets from row {start} on contain NaN or Inf; embed again")
            yield values

    shape = (len(representations), projection.width)
    write_matrix(path, parts(), shape, _DTYPE, attributes, crops)


def open_targets(path: Path, num_images: int, verify: bool = True) -> Targets:
    """Targets as a tensor over the memory-mapped file; `verify` compares digests first.

    Raises DataError for a wrong number of rows, damage, NaN or Inf: a NaN target would silently disable
    stage 1.
    """
    matrix = open_matrix(path, verify)
    values, crops = matrix.values, matrix.crops
    expected = num_images if crops is None else num_images * crops.shape[1]
    if len(values) != expected:
        raise DataError(f"{path} contains {len(values)} targets, the data set needs {expected}")
    for start, rows in blocks(values, ROWS_PER_PART):
        if not np.isfinite(rows).all():
            raise DataError(f"{path}: targets from row {start} on contain NaN or Inf")
    values.flags.writeable = False
    with warnings.catch_warnings():  # the mapping is read-only and never written
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return Targets(torch.from_numpy(values), crops)
