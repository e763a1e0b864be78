"""Images that are encoded already, such as those of a shard that was fetched and let go again.

A packed shard is the length of a table, the table (MessagePack), and the stored bytes of its images one
after another.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct, ValidationError, msgpack
from numpy.typing import NDArray

from rela.data.beton.encoding import StoredImage
from rela.errors import DataError
from rela.sources.image_file import BadImageError
from rela.sources.pixels import Origin
from rela.sources.source import FileRange, Sample

_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Outcome:
    """Result for one image: its digest, and the stored image or the reason why there is none."""

    source_sha256: str
    stored: StoredImage | None
    reason: str = ""


class _Row(Struct, frozen=True, array_like=True):
    """One image: its name as bytes, its class by number, and what an Outcome says but the stored bytes.

    `stored_sha256` is known where something else is kept in place of those.
    """

    name: bytes
    label: int
    source_sha256: str
    reason: str
    num_bytes: int
    mode: int = 0
    height: int = 0
    width: int = 0
    origin: Origin | None = None
    one_colour: bool = False
    stored_sha256: str = ""


class _Table(Struct, frozen=True):
    class_names: list[str]
    rows: list[_Row]
    stray: list[bytes]
    notes: list[str]
    num_skipped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Where the stored bytes of an encoded image are, and what else is known of it."""

    data: FileRange
    row: _Row

    @property
    def sha256(self) -> str:
        """Of the file that was encoded; empty if it could not be read."""
        return self.row.source_sha256

    def read(self) -> bytes:
        """The stored bytes, not those of the source."""
        return self.data.read()

    def outcome(self) -> Outcome:
        """What encoding it gave."""
        row = self.row
        if row.origin is None:
            return Outcome(row.source_sha256, None, row.reason)
        try:
            data = self.read()
        except BadImageError as error:
            raise DataError(f"{self.data.path}: {error}; run the same command again") from error
        stored = StoredImage(data, row.mode, row.height, row.width, row.origin, row.one_colour)
        return Outcome(row.source_sha256, stored)


@dataclass(frozen=True)
class Listing:
    """What a source said of a shard beside its images, as in `ImageSource`."""

    class_names: list[str]
    stray: list[str]
    notes: list[str]
    num_skipped: dict[str, int]


def pack(
    listing: Listing, encoded: Iterable[tuple[Sample, Outcome]], stored_sha256: Sequence[str] = ()
) -> bytearray:
    """The samples of a shard with their outcomes, as bytes.

    `stored_sha256`: digests of the stored images, where their data is something else, such as features.
    """
    digests = iter(stored_sha256)
    rows, packed = list[_Row](), bytearray()
    for sample, outcome in encoded:
        stored = outcome.stored
        known = os.fsencode(sample.path), sample.label, outcome.source_sha256, outcome.reason
        if stored is None:
            rows.append(_Row(*known, 0))
            continue
        packed += stored.data
        rows.append(
            _Row(
                *known,
                len(stored.data),
                stored.mode,
                stored.height,
                stored.width,
                stored.origin,
                stored.one_colour,
                next(digests, ""),
            )
        )
    table = msgpack.encode(
        _Table(
            listing.class_names,
            rows,
            [os.fsencode(name) for name in listing.stray],
            listing.notes,
            listing.num_skipped,
        )
    )
    packed[:0] = len(table).to_bytes(_LENGTH_BYTES, "little") + table
    return packed


def features_of(places: Sequence[Encoded], dtype: str, width: int) -> NDArray[Any]:
    """Features [n, width], read into memory, that were packed in place of the images of one shard."""
    if not places:
        return np.empty((0, width), dtype)
    count, data = len(places) * width, places[0].data
    return np.fromfile(data.path, dtype, count, offset=data.offset).reshape(-1, width)


def unpack(path: Path, start: int) -> tuple[Listing, list[Sample]]:
    """What was packed, from byte `start` of the file `path`; places are ranges of that file.

    Raises DataError if it is damaged.
    """
    try:
        with open(path, "rb") as file:
            file.seek(start)
            num_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            table = msgpack.decode(file.read(num_bytes), type=_Table)
    except (ValidationError, ValueError, MemoryError, OverflowError) as error:
        raise DataError(f"{path} is damaged ({error}); run the command again") from error
    listing = Listing(
        table.class_names, [os.fsdecode(name) for name in table.stray], table.notes, table.num_skipped
    )  # fmt: skip
    return listing, list(_samples(table.rows, str(path), start + _LENGTH_BYTES + num_bytes))


def _samples(rows: Sequence[_Row], path: str, at: int) -> Iterator[Sample]:
    for row in rows:
        place = Encoded(FileRange(path, at, row.num_bytes), row)
        yield Sample(os.fsdecode(row.name), row.label, place)
        at += row.num_bytes
