"""Matrices on disk, one below the other, read as one [N, D] without a copy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class StackedRows:
    """The rows of several [n, D] arrays of one type, such as memory maps, in their order.

    Has what readers of a matrix use: `shape`, `dtype`, `len`, one row, a slice of rows, or an array of row
    numbers; the latter two are read into memory if they come from several arrays.
    """

    ndim = 2

    def __init__(self, pieces: Sequence[NDArray[Any]]) -> None:
        self.pieces = list(pieces)
        self._ends = np.cumsum([len(piece) for piece in pieces])
        self._firsts = self._ends - [len(piece) for piece in pieces]
        self.shape = int(self._ends[-1]), int(pieces[0].shape[1])
        self.dtype = pieces[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate(self.pieces).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop))
            return self._at(np.arange(start, stop, step))
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        if not chosen.ndim:
            index = range(len(self))[int(chosen)]
            piece = self._piece_of(index)
            return np.asarray(self.pieces[piece][index - int(self._firsts[piece])])
        return self._at(chosen)

    def _piece_of(self, row: int) -> int:
        return int(np.searchsorted(self._ends, row, side="right"))

    def _between(self, start: int, stop: int) -> NDArray[Any]:
        found = []
        while start < stop:
            piece = self._piece_of(start)
            first = int(self._firsts[piece])
            end = min(stop, int(self._ends[piece]))
            found.append(self.pieces[piece][start - first : end - first])
            start = end
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else self.pieces[0][:0]

    def _at(self, rows: NDArray[Any]) -> NDArray[Any]:
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        values = np.empty((len(rows), self.shape[1]), self.dtype)
        pieces = np.searchsorted(self._ends, rows, side="right")
        for piece in np.unique(pieces):
            here = pieces == piece
            values[here] = self.pieces[piece][rows[here] - self._firsts[piece]]
        return values
