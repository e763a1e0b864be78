"""Tables of images: columns and rows of Arrow and Parquet files.

Arrow files, as `datasets` writes them, are memory-mapped. Only the offsets of their images are read, and
workers read the bytes without pyarrow. A cell of a Parquet column has no offset in the file, so one
process reads the cells in order, a few at a time for any size of row group, and sends the bytes to the
workers.
"""

import contextlib
import functools
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rela.errors import ChoiceError, DataError, one_line, require
from rela.sources.image_file import BadImageError
from rela.sources.labels import Label
from rela.sources.source import FileRange, Held, Place, SourceOptions, Unusable

_LABEL_NAME = "label"
_NO_BYTES = "its table holds no bytes for it, at most a path"
_BATCH_ROWS = 32
_KEPT_BATCHES = 4  # threads that read in turn are this far apart
_BUFFER_BYTES = 1 << 20

Rows = list[tuple[Place, Label]]


@dataclass(frozen=True)
class Columns:
    """Names of the columns of images and labels.

    - `image_field`: the field with the file's bytes, where an image is a struct;
    - `class_names`: the names of the numbers in `label`, if the table has them.
    """

    image: str
    image_field: str | None
    label: str | None
    class_names: list[str] | None


def require_pyarrow() -> Any:
    """pyarrow; raises ChoiceError with the command that installs it."""
    return require("pyarrow", "hf", "Parquet files and data sets of Hugging Face")


@contextlib.contextmanager
def named_damage(where: str) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into a DataError."""
    try:
        yield
    except (require_pyarrow().ArrowException, OSError, ValueError, MemoryError) as error:
        what = one_line((str(error).splitlines() or [type(error).__name__])[0])
        raise DataError(f"{where} is damaged, or not an Arrow or Parquet file: {what}") from error


def find_columns(schema: Any, where: str, options: SourceOptions) -> Columns:
    """The columns named in `options`, or else found by the types in the schema.

    Raises ChoiceError listing the columns if there are several candidates, or none.
    """
    features = _features(schema)
    images = [name for name in schema.names if _feature(features, name) == "Image"] or [
        field.name for field in schema if _holds_bytes(field.type)
    ]
    image = _chosen(options.image_column, images, schema, where, "image")
    if image is None:
        raise ChoiceError(f"{where} has no column of images, only {', '.join(schema.names)}")
    if not _holds_bytes(schema.field(image).type):
        raise ChoiceError(f"{where}: the column {image!r} holds no bytes of image files")
    labels = [name for name in schema.names if _feature(features, name) == "ClassLabel"] or [
        name for name in schema.names if name == _LABEL_NAME
    ]
    label = _chosen(options.label_column, labels, schema, where, "label")
    if label is not None and not _holds_labels(schema.field(label).type):
        raise ChoiceError(
            f"{where}: the column {label!r} holds {schema.field(label).type}, and labels are whole "
            "numbers or text; choose another --label-column"
        )
    names = _class_names(features, label, where)
    is_struct = require_pyarrow().types.is_struct(schema.field(image).type)
    return Columns(image, "bytes" if is_struct else None, label, names)


def _chosen(asked: str | None, found: list[str], schema: Any, where: str, what: str) -> str | None:
    """The column asked for, or the only one found."""
    if asked is not None:
        if schema.names.count(asked) != 1:
            raise ChoiceError(f"{where} has no column {asked!r}, only {', '.join(schema.names)}")
        return asked
    if len(found) > 1:
        raise ChoiceError(
            f"{where} has the {what} columns {', '.join(found)}; choose one with --{what}-column"
        )
    return found[0] if found else None


def _features(schema: Any) -> dict[str, Any]:
    """The metadata of `datasets` about the columns; empty for tables written by other programs."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _feature(features: dict[str, Any], column: str) -> str:
    found = features.get(column)
    return str(found.get("_type", "")) if isinstance(found, dict) else ""


def _class_names(features: dict[str, Any], label: str | None, where: str) -> list[str] | None:
    if label is None or _feature(features, label) != "ClassLabel":
        return None
    names = features[label].get("names")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DataError(f"{where}: the class names of {label!r} are not a list of text")
    return names


def _holds_bytes(kind: Any) -> bool:
    types = require_pyarrow().types
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        if index < 0:
            return False
        kind = kind.field(index).type
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _holds_labels(kind: Any) -> bool:
    types = require_pyarrow().types
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))


def arrow_rows(path: Path, find: Callable[[Any], Columns]) -> tuple[Columns, Rows]:
    """The columns that `find` chooses from the schema, and place and label of every row.

    Raises pyarrow's errors, and DataError for a compressed file.
    """
    pyarrow = require_pyarrow()
    with pyarrow.memory_map(str(path)) as file:
        mapped = file.read_buffer(file.size())
        reader = pyarrow.ipc.open_stream(pyarrow.BufferReader(mapped))
        columns = find(reader.schema)
        rows: Rows = []
        for batch in reader:
            images = batch.column(columns.image)
            images.validate(full=True)  # or offsets outside the batch would be followed
            labels = [None] * len(batch)
            if columns.label is not None:
                batch.column(columns.label).validate(full=True)
                labels = batch.column(columns.label).to_pylist()
            places = _places(path, mapped, images, columns.image_field)
            rows += zip(places, labels, strict=True)
    return columns, rows


def _places(path: Path, mapped: Any, images: Any, field: str | None) -> Iterator[Place]:
    """The byte range in the file of each image of a batch."""
    there = images.is_valid()
    if field is not None:
        images = images.field(field)
    there = np.asarray(there) & np.asarray(images.is_valid())
    _, offsets_buffer, data = images.buffers()
    wide = require_pyarrow().types.is_large_binary(images.type)
    offsets = np.frombuffer(offsets_buffer, np.int64 if wide else np.int32)
    offsets = offsets[images.offset : images.offset + len(images) + 1].astype(np.int64)
    start = 0 if data is None else data.address - mapped.address
    if data is not None and not 0 <= start <= start + data.size <= mapped.size:
        raise DataError(
            f"{one_line(str(path))} is compressed, but images are read by their offset in it; save "
            "the data set without compression"
        )
    name = str(path)
    for row, is_there in enumerate(there):
        if is_there:
            offset, size = int(offsets[row]), int(offsets[row + 1] - offsets[row])
            yield FileRange(name, start + offset, size)
        else:
            yield Unusable(_NO_BYTES)


def parquet_rows(path: Path, find: Callable[[Any], Columns]) -> tuple[Columns, Rows]:
    """The columns that `find` chooses from the schema, and place and label of every row.

    Raises pyarrow's errors, and DataError for a file that claims more rows than it has bytes.
    """
    from pyarrow import parquet

    status = path.stat()
    rows: Rows = []
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
    """One row of one row group of a column. Pickling it reads its bytes and pickles those."""

    path: str
    mtime_ns: int
    column: str
    group: int
    row: int

    def read(self) -> bytes:
        """The bytes; raises BadImageError for an empty cell, DataError for a damaged file."""
        with named_damage(one_line(self.path)):
            return _open(self.path, self.mtime_ns, self.column).cell(self.group, self.row)

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return Held, (self.read(),)
        except BadImageError as error:
            return Unusable, (str(error),)


@functools.lru_cache(maxsize=2)  # the current file and the one before it
def _open(path: str, mtime_ns: int, column: str) -> "_Column":
    return _Column(path, column)


class _Column:
    """One column of a file, read forwards; going back starts the row group again."""

    def __init__(self, path: str, column: str) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        self._column = column
        self._lock = threading.Lock()
        self._begin(-1)

    def cell(self, group: int, row: int) -> bytes:
        """The bytes in one cell; raises BadImageError if it is empty."""
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
            raise BadImageError(_NO_BYTES)
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
