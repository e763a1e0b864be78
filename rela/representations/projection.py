"""Targets from representations: PCA in float64, in one pass over the rows, and standardisation."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rela.data.memory import blocks
from rela.errors import DataError
from rela.pipeline.cores import num_cores

# Components below this share of the largest variance are rounding noise of the stored numbers, which must
# not be scaled to unit variance.
EIGENVALUE_FLOOR = 1e-6
# Components of little variance mostly reflect crops and colours. The default keeps the leading components,
# and at least LEAST_WIDTH where one direction dominates (benchmarks/RESULTS.md).
DEFAULT_VARIANCE_SHARE = 0.9
LEAST_WIDTH = 16
_BLOCK_ROWS = 8192
_CHUNK_ROWS = 512  # of a block, converted by one thread


@dataclass(frozen=True)
class Projection:
    """Centring, rotation onto the leading principal components, scaling of each to unit variance.

    - `mean` float64 [D]; `components` float64 [d, D], orthonormal rows; `scale` float64 [d], the
      standard deviation along each; `eigenvalues` float64 [D], descending;
    - `num_dropped`: number of requested components below the floor.
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    scale: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    num_dropped: int

    @property
    def width(self) -> int:
        """d, the number of kept components."""
        return len(self.scale)

    @property
    def explained_variance(self) -> float:
        """Share of the total variance in the kept components."""
        return float(self.eigenvalues[: self.width].sum() / self.eigenvalues.sum())

    def apply(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """[n, D] → [n, d], with mean 0 and variance 1 over the fitted rows."""
        return ((rows.astype(np.float64) - self.mean) @ self.components.T) / self.scale

    def standardised(self, rows: NDArray[np.floating], device: str = "cpu") -> NDArray[np.float32]:
        """`apply` with the product in float32, exact to 1e-5: for targets, which are stored as float16."""
        import torch

        centred = np.empty(rows.shape, np.float32)
        np.subtract(rows, self.mean, out=centred, casting="same_kind")  # in float64
        weights = torch.from_numpy((self.components.T / self.scale).astype(np.float32))
        product = torch.from_numpy(centred).to(device) @ weights.to(device)
        values: NDArray[np.float32] = product.cpu().numpy()
        return values


def fit_projection(
    rows: NDArray[np.floating],
    width: int,
    floor: float = EIGENVALUE_FLOOR,
    variance_share: float | None = None,
    device: str = "cpu",
) -> Projection:
    """PCA of rows [N, D] to at most `width` components (ReLA-D, arXiv 2405.14669).

    With `variance_share`, the fewest components with this share of the total variance, but at least
    LEAST_WIDTH.

    The covariance Y'Y / (N − 1) is accumulated in float64 around the first row. The sign of each component
    makes its largest entry positive, so the result is the same on every machine. The rows may be a memory
    map; the memory used does not depend on N. `device`: torch's, for the products. Raises DataError for NaN
    or Inf, and if no column varies.
    """
    num_rows, num_columns = rows.shape
    if num_rows < 2:
        raise DataError(f"{num_rows} row of representations; targets need at least 2 images")
    shift = rows[0].astype(np.float64)
    total, products = _sums(rows, shift) if device == "cpu" else _sums_on(device, rows, shift)
    if not np.isfinite(total).all():
        _refuse_not_finite(rows)
    offset = total / num_rows
    covariance = (products - num_rows * np.outer(offset, offset)) / (num_rows - 1)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    eigenvalues, vectors = eigenvalues[::-1].clip(min=0), vectors[:, ::-1]
    if eigenvalues[0] <= 0:
        raise DataError("every image has the same representation; this prior cannot give targets")
    wanted = min(width, num_columns)
    kept = min(wanted, int((eigenvalues > floor * eigenvalues[0]).sum()))
    num_dropped = wanted - kept
    if variance_share is not None:
        carried = np.cumsum(eigenvalues) / eigenvalues.sum()
        enough = 1 + int(np.searchsorted(carried, variance_share))
        kept = min(kept, max(enough, LEAST_WIDTH))
    components = vectors[:, :kept].T
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(kept), largest])
    return Projection(
        mean=shift + offset,
        components=np.ascontiguousarray(components * signs[:, None]),
        scale=np.sqrt(eigenvalues[:kept]),
        eigenvalues=eigenvalues,
        num_dropped=num_dropped,
    )


def _sums(
    rows: NDArray[np.floating], shift: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of x [D] and of xx' [D, D] over x = row − shift.

    The conversion to float64 would take longer than a product on many cores, so threads share it. NumPy
    computes half of the product of a matrix with itself.
    """
    total, products = np.zeros(len(shift)), np.zeros((len(shift), len(shift)))
    buffer = np.empty((min(_BLOCK_ROWS, len(rows)), len(shift)))
    with ThreadPoolExecutor(num_cores()) as pool:
        for _, stored in blocks(rows, _BLOCK_ROWS):
            block = buffer[: len(stored)]

            def converted(start: int, stored: Any = stored, block: Any = block) -> Any:
                chunk = slice(start, start + _CHUNK_ROWS)
                return np.subtract(stored[chunk], shift, out=block[chunk]).sum(axis=0)

            for chunk_sum in pool.map(converted, range(0, len(stored), _CHUNK_ROWS)):
                total += chunk_sum
            products += block.T @ block
    return total, products


def _sums_on(
    device: str, rows: NDArray[np.floating], shift: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`_sums` by torch, on a GPU."""
    import torch

    known = torch.from_numpy(shift).to(device)
    total, products = torch.zeros_like(known), known.new_zeros(len(shift), len(shift))
    for _, stored in blocks(rows, _BLOCK_ROWS):
        block = torch.tensor(stored).to(device, torch.float64).sub_(known)
        total += block.sum(dim=0)
        products.addmm_(block.T, block)
    return total.cpu().numpy(), products.cpu().numpy()


def _refuse_not_finite(rows: NDArray[np.floating]) -> None:
    for start, block in blocks(rows, _BLOCK_ROWS):
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if bad.size:
            raise DataError(
                f"representation {start + bad[0]} contains NaN or Inf; embed the data set again"
            )
