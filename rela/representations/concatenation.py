"""Concatenation of representations of several priors, with equal weight.

Each column is standardised over the data set, and the columns of a prior are divided by the square root of
their number. So each prior has a total variance of 1, whatever its width. PCA then merges what the priors
share.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rela.errors import DataError
from rela.representations.matrix_file import ROWS_PER_PART, write_matrix


@dataclass(frozen=True)
class Standardisation:
    """Columns of one prior that vary, at mean 0 and variance 1 / k.

    - `kept` int64 [k], column numbers; `mean` float64 [k];
    - `scale` float64 [k], the standard deviation of each kept column (over N, not N − 1) times √k;
    - `num_dropped`: number of columns with the same value for every image.
    """

    kept: NDArray[np.int64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    num_dropped: int

    @property
    def width(self) -> int:
        """k, the number of kept columns."""
        return len(self.kept)

    def apply(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """[n, D] → [n, k]."""
        return (rows[:, self.kept].astype(np.float64) - self.mean) / self.scale


def fit_standardisation(rows: NDArray[np.floating]) -> Standardisation:
    """Fit rows [N, D], which may be a memory map, in one pass; the memory used does not depend on N.

    Means and squared deviations of parts are merged in float64 (Chan, Golub & LeVeque, 1983), so a mean
    far from zero costs no precision. Raises DataError for NaN or Inf, and if no column varies.
    """
    num_columns = rows.shape[1]
    mean, squares = np.zeros(num_columns), np.zeros(num_columns)
    lowest, highest = np.full(num_columns, np.inf), np.full(num_columns, -np.inf)
    for start in range(0, len(rows), ROWS_PER_PART):
        part = rows[start : start + ROWS_PER_PART].astype(np.float64)
        if not np.isfinite(part).all():
            raise DataError(f"representations from row {start} on contain NaN or Inf; embed again")
        lowest, highest = (
            np.minimum(lowest, part.min(axis=0)),
            np.maximum(highest, part.max(axis=0)),
        )
        count = start + len(part)
        step = part.mean(axis=0) - mean
        mean += step * (len(part) / count)
        squares += part.var(axis=0) * len(part) + step**2 * (start * len(part) / count)
    kept = np.flatnonzero(highest > lowest)
    if not kept.size:
        raise DataError("every image has the same representation; this prior cannot be combined")
    deviation = np.sqrt(squares[kept] / len(rows))
    scale = deviation * np.sqrt(kept.size)
    return Standardisation(kept, mean[kept], scale, num_columns - kept.size)


def write_combination(
    path: Path,
    matrices: Sequence[NDArray[np.floating]],
    fitted: Sequence[Standardisation],
    dtype: DTypeLike,
    attributes: dict[str, Any],
    crops: NDArray[np.uint16] | None = None,
) -> None:
    """Write [N, k₁ + k₂ + …] to `path`, in the given order, part by part (see `matrix_file`)."""
    num_rows = len(matrices[0])

    def parts() -> Iterator[NDArray[np.float64]]:
        for start in range(0, num_rows, ROWS_PER_PART):
            rows = slice(start, start + ROWS_PER_PART)
            blocks = [f.apply(m[rows]) for f, m in zip(fitted, matrices, strict=True)]
            yield np.concatenate(blocks, axis=1)

    shape = (num_rows, sum(standardisation.width for standardisation in fitted))
    write_matrix(path, parts(), shape, dtype, attributes, crops)
