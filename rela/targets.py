"""The file of targets: what stage 1 regresses, one row per image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rela.errors import DataError
from rela.projection import Projection
from rela.representations import ROWS_PER_PART, open_matrix, write_matrix

_DTYPE = "float16"


def write_targets(
    path: Path, representations: NDArray[np.floating], projection: Projection,
    attributes: dict[str, Any],
) -> None:  # fmt: skip
    """Project representations [N, D] to targets [N, d] float16, part by part, into `path`."""

    def parts() -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(representations), ROWS_PER_PART):
            values = projection.apply(representations[start : start + ROWS_PER_PART])
            if not np.isfinite(values).all():
                raise DataError(f"targets of images {start} onwards hold NaN or Inf; embed again")
            yield values

    write_matrix(path, parts(), (len(representations), projection.width), _DTYPE, attributes)


def open_targets(path: Path, num_images: int) -> Tensor:
    """Targets [N, d] float16 as a tensor over the memory-mapped file, verified.

    Raises DataError for another number of rows, damage, NaN or Inf: a target that is not a number
    would silently switch stage 1 off.
    """
    values = open_matrix(path).values
    if len(values) != num_images:
        raise DataError(f"{path} holds {len(values)} targets, the data set has {num_images} images")
    for start in range(0, len(values), ROWS_PER_PART):
        if not np.isfinite(values[start : start + ROWS_PER_PART]).all():
            raise DataError(f"{path}: targets of images {start} onwards hold NaN or Inf")
    values.flags.writeable = False
    import warnings

    with warnings.catch_warnings():  # the mapping is read-only, and nothing writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)
