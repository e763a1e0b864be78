"""Label-free measures of representations, in float64: RankMe, spread, uniformity, linear CKA.

All take rows [n, D] of any float type, image i in row i, and keep at most one float64 copy of them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rela.data.sampling import epoch_order

_BLOCK_ROWS = 512
_TEMPERATURE = 2.0


def sample_rows(num_rows: int, most: int) -> NDArray[np.int64]:
    """At most `most` of N row numbers, int64: the same for every prior, machine and call.

    Their order is random, so any slice is a random sample too.
    """
    return epoch_order(num_rows, seed=0, epoch=0)[:most]


def effective_rank(rows: NDArray[np.floating]) -> float:
    """RankMe (arXiv 2210.02885): exp of the entropy of the singular values over their sum, 1 to D.

    The rows are not centred, as in the paper. The singular values are square roots of the eigenvalues of
    the smaller Gram matrix: exact to 1e-8 of the largest, in a fraction of an SVD's time. 0 if all rows are
    zero.
    """
    values = rows.astype(np.float64)
    gram = values.T @ values if values.shape[1] <= len(values) else values @ values.T
    singular_values = np.sqrt(np.linalg.eigvalsh(gram).clip(min=0))
    total = singular_values.sum()
    if total == 0:
        return 0.0
    shares = singular_values[singular_values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def feature_std(rows: NDArray[np.floating]) -> float:
    """Mean over columns of √D · standard deviation, for rows normalised to length 1.

    Chen & He's indicator of collapse (arXiv 2011.10566): 1 for isotropic directions, 0 if all rows have the
    same direction. Rows of zeros stay zeros.
    """
    values = rows.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.where(lengths > 0, lengths, 1)
    return float(values.std(axis=0).mean() * np.sqrt(values.shape[1]))


def uniformity(rows: NDArray[np.floating]) -> float:
    """log of the mean of exp(−2 ‖x − y‖²) over pairs of different rows, each normalised to length 1.

    (Wang & Isola, arXiv 2005.10242.) 0 if all rows have the same direction, near −4 if they cover a sphere
    of many dimensions: lower is more uniform. Requires at least 2 rows.
    """
    values = rows.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.where(lengths > 0, lengths, 1)
    squares = (lengths[:, 0] > 0).astype(np.float64)  # 0 for rows of zeros
    total = 0.0
    for start in range(0, len(values), _BLOCK_ROWS):  # a block with itself and all later rows
        block, rest = slice(start, start + _BLOCK_ROWS), slice(start, None)
        distances = squares[block, None] + squares[rest] - 2 * (values[block] @ values[rest].T)
        kernel = np.exp(-_TEMPERATURE * distances)
        total += 2 * kernel.sum() - kernel[:, : len(kernel)].sum()
    num_rows = len(values)
    return float(np.log((total - num_rows) / (num_rows * (num_rows - 1))))


def linear_cka(representations: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Linear CKA (arXiv 1905.00414) between all P representations of the same rows, [P, P] in [0, 1].

    ‖X'Y‖² / (‖X'X‖ ‖Y'Y‖) with centred columns and Frobenius norms: 1 for rotated, scaled or shifted
    copies, 0 if one of the two does not vary.
    """
    count = len(representations)
    products = np.zeros((count, count))
    for i in range(count):
        first = _centred(representations[i])
        for j in range(i, count):
            second = first if i == j else _centred(representations[j])
            products[i, j] = products[j, i] = np.square(first.T @ second).sum()
    norms = np.sqrt(np.outer(products.diagonal(), products.diagonal()))
    alignment = np.zeros_like(products)
    np.divide(products, norms, out=alignment, where=norms > 0)
    return alignment


def _centred(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = rows.astype(np.float64)
    values -= values.mean(axis=0)
    return values
