"""Nearest neighbours by cosine similarity, in matrices larger than memory."""

import numpy as np
from numpy.typing import NDArray

from rela.data.memory import blocks

_ROWS_AT_ONCE = 4096


def nearest_neighbors(
    values: NDArray[np.floating], query: NDArray[np.floating], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(rows, similarities) of the `count` rows of [N, D] most similar to `query` [D], best first.

    Similarities are computed in float32 and lie in [-1, 1]; those with a row or query of zeros are 0. Ties
    are in row order. At most N rows are returned.
    """
    direction = _directions(query[None].astype(np.float32))[0]
    similarities = np.empty(len(values), np.float32)
    for start, rows in blocks(values, _ROWS_AT_ONCE):
        found = _directions(rows.astype(np.float32)) @ direction
        similarities[start : start + len(rows)] = np.clip(found, -1, 1)
    best = np.argsort(-similarities, kind="stable")[:count]
    return best.astype(np.int64), similarities[best]


def _directions(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    directions = np.zeros_like(rows)
    np.divide(rows, lengths, out=directions, where=lengths > 0)
    return directions
