"""Nearest neighbours by cosine similarity, in matrices larger than memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rela.data.memory import blocks, release_pages

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Matrices = Sequence[
    NDArray[np.floating]
]  # of one width; their rows are numbered one after the other
Tell = Callable[[int, int], None]  # (blocks of similarities that are done, how many there are)
_ROWS_AT_ONCE = 4096
_SIDE, _SIDE_ON_A_GPU = 2048, 8192  # of a block of similarities: 16 and 256 MiB
_LEAST_SHARE = 1e-6  # of a row: what is shorter after centring is rounding


def nearest_neighbors(
    values: NDArray[np.floating], query: NDArray[np.floating], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(rows, similarities) of the `count` rows of [N, D] most similar to `query` [D], best first.

    Similarities are computed in float32 and lie in [-1, 1]; those with a row or query of zeros are 0. Ties
    are in row order. At most N rows are returned.
    """
    direction = directions(query[None].astype(np.float32))[0]
    similarities = np.empty(len(values), np.float32)
    for start, rows in blocks(values, _ROWS_AT_ONCE):
        found = directions(rows.astype(np.float32)) @ direction
        similarities[start : start + len(rows)] = np.clip(found, -1, 1)
    best = np.argsort(-similarities, kind="stable")[:count]
    return best.astype(np.int64), similarities[best]


def mean_distances(
    matrices: Matrices, k: int, device: "torch.device | str" = "cpu", tell: Tell | None = None
) -> NDArray[np.float32]:
    """Mean cosine distance of each centred row to its k nearest other rows: float32 [N] in [0, 2].

    The distance is 1 − cosine of rows minus their mean over all N. This is the outlier score of Angiulli &
    Pizzuti (PKDD 2002), on features as in Bergman et al. (arXiv 2002.10445). k is at most N − 1; N at least
    2. Needs memory for k · N numbers and one block of similarities.
    """
    import torch

    num_rows = sum(map(len, matrices))
    best = torch.full((num_rows, min(k, num_rows - 1)), -torch.inf, device=torch.device(device))

    def keep(start: int, tile: "Tensor") -> None:
        rows = slice(start, start + len(tile))
        found = tile.topk(min(best.shape[1], tile.shape[1]), dim=1).values
        best[rows] = torch.cat([best[rows], found], dim=1).topk(best.shape[1], dim=1).values

    for first, second, tile in _similarities(matrices, device, tell):
        keep(first, tile)
        if first != second:
            keep(second, tile.T)
    distances: NDArray[np.float32] = (1 - best.mean(dim=1)).cpu().numpy()
    return distances


def similar_groups(
    matrices: Matrices,
    threshold: float,
    device: "torch.device | str" = "cpu",
    tell: Tell | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(groups int64 [N], similarities float32 [N] in [-1, 1]) of the rows of [N, D] in one or more matrices.

    The similarity of a row is its largest cosine with another row, after the mean of all N rows was
    subtracted from each (as in arXiv 1702.01417: features share a large mean, which makes every cosine
    large). Two rows with a cosine of at least `threshold` are in one group, and so are all that a chain of
    such pairs connects. A group is called by its smallest row. Every pair is compared, in float32. N is at
    least 2.
    """
    import torch

    num_rows = sum(map(len, matrices))
    nearest = torch.full((num_rows,), -torch.inf, device=torch.device(device))
    groups = np.arange(num_rows)
    for first, second, tile in _similarities(matrices, device, tell):
        for start, most in ((first, tile.amax(dim=1)), (second, tile.amax(dim=0))):
            rows = slice(start, start + len(most))
            nearest[rows] = torch.maximum(nearest[rows], most)
        pairs = (tile >= threshold).nonzero().cpu().numpy()
        _join(groups, pairs[:, 0] + first, pairs[:, 1] + second)
    return groups, nearest.cpu().numpy()


def _join(groups: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    """Unite the groups of rows one[i] and other[i], each called by its smallest row, in place."""
    while (groups[one] != groups[other]).any():
        least = np.minimum(groups[one], groups[other])
        np.minimum.at(groups, groups[one], least)
        np.minimum.at(groups, groups[other], least)
        while (groups[groups] != groups).any():
            groups[:] = groups[groups]


def _similarities(
    matrices: Matrices, device: "torch.device | str", tell: Tell | None
) -> Iterator[tuple[int, int, "Tensor"]]:
    """(first row, first column, cosines float32) of every block with first row ≤ first column.

    Of centred rows, by `device`. A row with itself has -inf, a row that is the mean 0 with every other.
    """
    import torch

    place = torch.device(device)
    side = _SIDE if place.type == "cpu" else _SIDE_ON_A_GPU
    mean = torch.from_numpy(_mean(matrices)).to(place)
    starts = np.cumsum([0, *map(len, matrices)])
    parts = [
        (int(start) + begin, matrix, slice(begin, begin + side))
        for start, matrix in zip(starts, matrices, strict=False)
        for begin in range(0, len(matrix), side)
    ]
    num_blocks, done = len(parts) * (len(parts) + 1) // 2, 0

    def centred(matrix: NDArray[np.floating], rows: slice) -> "Tensor":
        values = torch.from_numpy(np.array(matrix[rows])).to(place).float()
        release_pages(matrix)
        lengths = values.norm(dim=1, keepdim=True)
        values -= mean
        left = values.norm(dim=1, keepdim=True)
        return torch.where(left > _LEAST_SHARE * lengths, values / left, 0.0)

    for number, (first, matrix, rows) in enumerate(parts):
        queries = centred(matrix, rows)
        for second, other, columns in parts[number:]:
            found = queries if first == second else centred(other, columns)
            tile = (queries @ found.T).clamp_(-1, 1)
            if first == second:
                tile.fill_diagonal_(-torch.inf)
            yield first, second, tile
            done += 1
            if tell is not None:
                tell(done, num_blocks)


def _mean(matrices: Matrices) -> NDArray[np.float32]:
    """Of all rows, summed in float64."""
    total = np.zeros(matrices[0].shape[1])
    for matrix in matrices:
        for _, rows in blocks(matrix, _ROWS_AT_ONCE):
            total += rows.sum(axis=0, dtype=np.float64)
    return (total / sum(map(len, matrices))).astype(np.float32)


def directions(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    directions = np.zeros_like(rows)
    np.divide(rows, lengths, out=directions, where=lengths > 0)
    return directions
