"""Arrow files, as `datasets` writes them: images are bytes at a place in the file.

The file is mapped, and of its images only the offsets are looked at, so that a worker needs neither
pyarrow nor more than its own images.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rela.errors import DataError, one_line
from rela.sources.columns import Columns, require_pyarrow
from rela.sources.labels import Label
from rela.sources.places import FileRange, Unusable
from rela.sources.sample import Place

NO_BYTES = "its table holds no bytes for it, at most a path"


def arrow_rows(
    path: Path, find: Callable[[Any], Columns]
) -> tuple[Columns, list[tuple[Place, Label]]]:
    """The columns that `find` chooses from the schema, and place and label of every row.

    Raises what pyarrow raises, and DataError for files that are compressed.
    """
    pyarrow = require_pyarrow()
    with pyarrow.memory_map(str(path)) as file:
        mapped = file.read_buffer(file.size())
        reader = pyarrow.ipc.open_stream(pyarrow.BufferReader(mapped))
        columns = find(reader.schema)
        rows: list[tuple[Place, Label]] = []
        for batch in reader:
            images = batch.column(columns.image)
            images.validate(full=True)  # offsets that lead out of a batch would be followed
            labels = [None] * len(batch)
            if columns.label is not None:
                batch.column(columns.label).validate(full=True)
                labels = batch.column(columns.label).to_pylist()
            places = _places(path, mapped, images, columns.image_field)
            rows += zip(places, labels, strict=True)
    return columns, rows


def _places(path: Path, mapped: Any, images: Any, field: str | None) -> Iterator[Place]:
    """Where the bytes of each image of a batch lie in the file."""
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
            f"{one_line(str(path))} is compressed, and images are read from their place in it; save "
            "the data set without compression"
        )
    name = str(path)
    for row, is_there in enumerate(there):
        if is_there:
            offset, size = int(offsets[row]), int(offsets[row + 1] - offsets[row])
            yield FileRange(name, start + offset, size)
        else:
            yield Unusable(NO_BYTES)
