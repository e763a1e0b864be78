"""Parquet files: images are cells of a column that is read from its beginning on.

A cell has no place of its own in the file, so one process reads them in their order, a few at a time
whatever the size of a row group, and gives the workers bytes.
"""

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import DataError, one_line
from rela.image_file import BadImageError
from rela.sources.arrow_files import NO_BYTES
from rela.sources.columns import Columns, require_pyarrow
from rela.sources.labels import Label
from rela.sources.places import Held, Unusable
from rela.sources.sample import Place

_BATCH_ROWS = 32
_KEPT_BATCHES = 4  # threads that read in turn are this far apart
_BUFFER_BYTES = 1 << 20


def parquet_rows(
    path: Path, find: Callable[[Any], Columns]
) -> tuple[Columns, list[tuple[Place, Label]]]:
    """The columns that `find` chooses from the schema, and place and label of every row.

    Raises what pyarrow raises, and DataError for a file that claims more rows than it has bytes.
    """
    from pyarrow import parquet

    status = path.stat()
    rows: list[tuple[Place, Label]] = []
    with parquet.ParquetFile(path) as file:
        if file.metadata.num_rows > status.st_size:
            raise DataError(f"{one_line(str(path))} claims more rows than it has bytes")
        columns = find(file.schema_arrow)
        leaf = ".".join(filter(None, (columns.image, columns.image_field)))
        name = str(path)
        for group in range(file.num_row_groups):
            labels = [None] * file.metadata.row_group(group).num_rows
            if columns.label is not None:
                labels = file.read_row_group(group, [columns.label]).column(0).to_pylist()
            rows += (
                (ParquetCell(name, status.st_mtime_ns, leaf, group, row), label)
                for row, label in enumerate(labels)
            )
    return columns, rows


@dataclass(frozen=True, slots=True)
class ParquetCell:
    """One row of one row group of a column; pickled, it becomes the bytes in it."""

    path: str
    mtime_ns: int
    column: str
    group: int
    row: int

    def read(self) -> bytes:
        """The bytes; raises BadImageError for a cell without any, DataError for a damaged file."""
        try:
            return _open(self.path, self.mtime_ns, self.column).cell(self.group, self.row)
        except (require_pyarrow().ArrowException, OSError, ValueError, MemoryError) as error:
            what = one_line((str(error).splitlines() or [type(error).__name__])[0])
            raise DataError(f"{one_line(self.path)} is damaged: {what}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return Held, (self.read(),)
        except BadImageError as error:
            return Unusable, (str(error),)


@functools.lru_cache(maxsize=2)  # the file that is read, and the one before it
def _open(path: str, mtime_ns: int, column: str) -> "_Column":
    return _Column(path, column)


class _Column:
    """One column of a file, read forwards; going back begins the row group anew."""

    def __init__(self, path: str, column: str) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        self._column = column
        self._lock = threading.Lock()
        self._begin(-1)

    def cell(self, group: int, row: int) -> bytes:
        """The bytes in one cell; raises BadImageError where there are none."""
        with self._lock:
            if group != self._group or row < self._kept_from():
                self._begin(group)
            while row >= self._next_row:
                batch = next(self._batches)
                self._kept.append((self._next_row, batch))
                self._next_row += len(batch)
            start, batch = next(kept for kept in reversed(self._kept) if kept[0] <= row)
        value = batch[row - start].as_py()
        if isinstance(value, dict):
            (value,) = value.values()
        if value is None:
            raise BadImageError(NO_BYTES)
        return bytes(value)

    def _begin(self, group: int) -> None:
        self._group, self._next_row = group, 0
        self._kept: deque[tuple[int, Any]] = deque(maxlen=_KEPT_BATCHES)
        self._batches = iter(()) if group < 0 else self._read(group)

    def _kept_from(self) -> int:
        return self._kept[0][0] if self._kept else 0

    def _read(self, group: int) -> Iterator[Any]:
        batches = self._file.iter_batches(
            _BATCH_ROWS, row_groups=[group], columns=[self._column], use_threads=False
        )
        yield from (batch.column(0) for batch in batches)
        raise ValueError("a row group ends before its last row")
