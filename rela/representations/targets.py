"""The file of targets: what stage 1 regresses, a row for each image or for each of its crops."""

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
    """What stage 1 regresses: `values` float16 [N, d], one row per image.

    With `crops` (uint16 [N, K, 5], see rela.data.crops) there are K rows per image, [N · K, d].
    """

    values: Tensor
    crops: NDArray[np.uint16] | None = None


def write_targets(
    path: Path, representations: NDArray[np.floating], projection: Projection,
    attributes: dict[str, Any], crops: NDArray[np.uint16] | None = None,
) -> None:  # fmt: skip
    """Project representations [N, D] to targets [N, d] float16, part by part, into `path`."""

    def parts() -> Iterator[NDArray[np.float64]]:
        for start, rows in blocks(representations, ROWS_PER_PART):
            values = projection.apply(rows)
            if not np.isfinite(values).all():
                raise DataError(f"targets of rows {start} onwards hold NaN or Inf; embed again")
            yield values

    shape = (len(representations), projection.width)
    write_matrix(path, parts(), shape, _DTYPE, attributes, crops)


def open_targets(path: Path, num_images: int, verify: bool = True) -> Targets:
    """Targets as a tensor over the memory-mapped file; with `verify`, digests are compared first.

    Raises DataError for another number of rows, damage, NaN or Inf: a target that is not a number
    would silently switch stage 1 off.
    """
    matrix = open_matrix(path, verify)
    values, crops = matrix.values, matrix.crops
    expected = num_images if crops is None else num_images * crops.shape[1]
    if len(values) != expected:
        raise DataError(f"{path} holds {len(values)} targets, the data set needs {expected}")
    for start, rows in blocks(values, ROWS_PER_PART):
        if not np.isfinite(rows).all():
            raise DataError(f"{path}: targets of rows {start} onwards hold NaN or Inf")
    values.flags.writeable = False
    with warnings.catch_warnings():  # the mapping is read-only, and nothing writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return Targets(torch.from_numpy(values), crops)
