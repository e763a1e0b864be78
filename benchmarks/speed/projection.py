"""PCA of representations: one pass in float64 against scikit-learn's IncrementalPCA."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA, IncrementalPCA

from benchmarks.speed.comparison import Comparison, Figure, compare, rate
from rela.representations.projection import fit_projection

# As many rows for each column as 100,000 representations of a ResNet-50 have, at an eighth of the work.
NUM_ROWS, NUM_COLUMNS, NUM_COMPONENTS = 51_200, 1024, 256


def run(rounds: int, scratch: Path) -> list[Comparison | Figure]:
    """Rows per second, and how far the two results are from the exact one."""
    (scratch / "projection").mkdir(exist_ok=True)
    rows = synthetic_rows(scratch / "projection" / "rows.npy")
    left = rows.astype(np.float32)
    right = left.copy()  # NumPy would compute half of the product of a matrix with itself
    timed = compare(
        f"PCA of {NUM_ROWS:,} × {NUM_COLUMNS:,} float16 rows to {NUM_COMPONENTS} components", "rows/s",
        {
            "one pass, float64": lambda: rate(NUM_ROWS, lambda: fit_projection(rows, NUM_COMPONENTS)),
            "IncrementalPCA, float32": lambda: rate(NUM_ROWS, lambda: incremental(rows)),
            "one float32 product": lambda: rate(NUM_ROWS, lambda: left.T @ right),
        },
        rounds,
        targets={"IncrementalPCA, float32": 5, "one float32 product": 1 / 1.2},
    )  # fmt: skip
    exact = PCA(NUM_COMPONENTS, svd_solver="covariance_eigh").fit(rows.astype(np.float64))
    ours, theirs = fit_projection(rows, NUM_COMPONENTS), incremental(rows)
    compared = (
        "largest difference of variances (relative) and directions (1 - |cos|) from PCA in float64"
    )
    found = {
        "one pass": (difference(ours.eigenvalues, ours.components, exact), 1e-4),
        "IncrementalPCA": (
            difference(theirs.explained_variance_, theirs.components_, exact), None,
        ),
    }  # fmt: skip
    figures = [Figure(f"{name}: {compared}", "", [d], limit) for name, (d, limit) in found.items()]
    return [timed, *figures]


def synthetic_rows(path: Path) -> NDArray[np.float16]:
    """Correlated columns whose variances fall like those of representations do; memory-mapped."""
    if not path.is_file():
        random = np.random.default_rng(0)
        mixing = np.linalg.qr(random.standard_normal((NUM_COLUMNS, NUM_COLUMNS)))[0]
        mixing *= np.arange(1, NUM_COLUMNS + 1)[:, None] ** -0.75
        rows = random.standard_normal((NUM_ROWS, NUM_COLUMNS), np.float32) @ mixing.astype("f4")
        np.save(path, (4 * rows + 0.5).astype(np.float16))
    return np.load(path, mmap_mode="r")


def incremental(rows: NDArray[np.float16]) -> IncrementalPCA:
    """In scikit-learn's own batches of 5 · D rows; in float32, which it computes faster than float64."""
    pca = IncrementalPCA(NUM_COMPONENTS, whiten=True)
    for start in range(0, len(rows), 5 * rows.shape[1]):
        pca.partial_fit(rows[start : start + 5 * rows.shape[1]].astype(np.float32))
    return pca


def difference(
    variances: NDArray[np.floating], components: NDArray[np.floating], exact: PCA
) -> float:
    """Of all components that were kept."""
    ratios = variances[:NUM_COMPONENTS] / exact.explained_variance_
    cosines = (components[:NUM_COMPONENTS] * exact.components_).sum(axis=1)
    return float(max(np.abs(ratios - 1).max(), (1 - np.abs(cosines)).max()))
