"""A .zip, .tar or .tar.gz of image folders, read in place: nothing is extracted, links are not followed.

The names in it are understood as those of folders, in rela.sources.splits.layout.
"""

import contextlib
import functools
import gzip
import itertools
import stat
import struct
import threading
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from rela.errors import DataError, UnavailableError, one_line
from rela.pipeline.files import regular_file
from rela.sources.image_file import BadImageError
from rela.sources.source import (
    FileRange,
    Held,
    ImageSource,
    ListingProgress,
    Place,
    SourceOptions,
    Unusable,
)
from rela.sources.splits.layout import read_layout
from rela.sources.splits.tree import is_image_name, is_system_name, tree_of_names
from rela.sources.tar_archives import is_plain_file, leads_out, open_tar_file, walk_tar

WHAT = "an archive of image folders (.zip, .tar, .tar.gz)"
_TARS = (".tar.gz", ".tgz", ".tar")
SUFFIXES = (".zip", *_TARS)
OPTIONS = ("layout", "label_column")
_LOOKED_AT = 2000  # members that tell image folders from WebDataset's shards
_LARGEST_MEMBER_BYTES = 1 << 28  # uncompressed: more than Pillow's largest image of 8 bits
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field
_CHUNK_BYTES, _KEPT_BYTES = 1 << 20, 1 << 26

Members = Iterable[tuple[str, Place]]


def recognises(path: Path) -> bool:
    """Whether `path` is a .zip, or a tar with images in folders and no labels of WebDataset."""
    name = path.name.lower()
    if not path.is_file() or not name.endswith(SUFFIXES):
        return False
    if name.endswith(".zip"):
        return True
    with contextlib.suppress(DataError), open_tar_file(path) as file:
        members = itertools.islice(walk_tar(file, path), _LOOKED_AT)
        names = [member.name.removeprefix("./") for member in members if member.isreg()]
        names = [n for n in names if not (leads_out(n) or any(map(is_system_name, n.split("/"))))]
        stems = {name.rpartition(".")[0] for name in names if is_image_name(name)}
        labels = {n.rpartition(".")[0] for n in names if n.lower().endswith(".json")} & stems
        has_cls = any(name.lower().endswith(".cls") for name in names)
        return any("/" in stem for stem in stems) and not (labels or has_cls)
    return False


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The images in the archive; those of a compressed tar in its order, which is read forwards.

    Raises DataError for an archive that is damaged or holds a name twice.
    """
    where = one_line(str(path))
    members = _zip_members(path) if path.name.lower().endswith(".zip") else _tar_members(path)
    places: dict[str, Place] = {}
    outside: list[str] = []
    for name, place in members:
        if leads_out(name):
            outside.append(name)
            continue
        inside = "/".join(PurePosixPath(name).parts)
        if places.setdefault(inside, place) is not place:
            raise DataError(f"{where} holds {one_line(inside)} twice")

    def content(name: str) -> bytes:
        try:
            found = places[name].read()
        except BadImageError as error:
            raise DataError(f"{where}: {one_line(name)}: {error}") from error
        assert isinstance(found, bytes), "archives hold files"
        return found

    missing = Unusable("listed in the metadata, but not in the archive")
    source = read_layout(
        tree_of_names(places, content), path, options, lambda name: places.get(name, missing)
    )
    order = {name: number for number, name in enumerate(places)}
    if any(isinstance(place, GzipRange) for place in places.values()):
        splits = {
            split: sorted(samples, key=lambda sample: order.get(sample.path, 0))
            for split, samples in source.splits.items()
        }
        source = replace(source, splits=splits)
    if outside:
        count = f"{len(outside):,} file{'s' * (len(outside) != 1)}"
        note = (
            f"left out {count} whose names lead out of the archive, such as {one_line(outside[0])}"
        )
        source = replace(source, notes=[*source.notes, note])
    return source


def _tar_members(path: Path) -> Members:
    with open_tar_file(path) as file:
        is_compressed = isinstance(file, gzip.GzipFile)
        mtime = path.stat().st_mtime_ns
        for member in walk_tar(file, path):
            place: Place = Unusable("no regular file in its archive")
            if is_plain_file(member):
                at, size = member.offset_data, member.size
                place = FileRange(str(path), at, size)
                if is_compressed:
                    place = GzipRange(str(path), mtime, at, size)
            if not member.isdir():
                yield member.name, place


def _zip_members(path: Path) -> Members:
    where = one_line(str(path))
    try:
        with open(path, "rb", opener=regular_file) as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename.replace("\\", "/"), _zip_place(path, info)
    except OSError as error:
        raise UnavailableError(f"{where} cannot be read: {error.strerror}") from error
    except Exception as error:  # zipfile raises errors of several types for damaged archives
        what = str(error).strip() or type(error).__name__
        raise DataError(f"{where} is damaged, or not a zip: {one_line(what)}") from error


def _zip_place(path: Path, info: zipfile.ZipInfo) -> Place:
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Unusable("no regular file in its archive")
    if info.flag_bits & 0x1:
        return Unusable("encrypted; extract the archive with its password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Unusable("compressed by a rare method; extract the archive")
    is_deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return ZipMember(
        str(path), info.header_offset, info.compress_size, info.file_size, info.CRC, is_deflated
    )


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file in a zip: its local header at `offset`, `stored_size` bytes that become `size`."""

    path: str
    offset: int
    stored_size: int
    size: int
    crc: int
    is_deflated: bool

    def read(self) -> bytes:
        """The bytes; raises BadImageError if they are damaged or too many."""
        _refuse_large(self.size)
        header = FileRange(self.path, self.offset, _LOCAL_HEADER.size).read()
        signature, name, extra = _LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise BadImageError("damaged: its archive has no header there")
        at = self.offset + _LOCAL_HEADER.size + name + extra
        content = FileRange(self.path, at, self.stored_size).read()
        if self.is_deflated:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
            except zlib.error as error:
                raise BadImageError(f"damaged in its archive: {error}") from error
        if len(content) != self.size or zlib.crc32(content) != self.crc:
            raise BadImageError("damaged in its archive: wrong size or checksum")
        return content


@dataclass(frozen=True, slots=True)
class GzipRange:
    """`size` bytes from `offset` of a gzipped file. Pickling it reads its bytes and pickles those."""

    path: str
    mtime_ns: int
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes; raises BadImageError if they cannot be read."""
        _refuse_large(self.size)
        try:
            return _open(self.path, self.mtime_ns).read(self.offset, self.size)
        except (OSError, EOFError, zlib.error) as error:
            raise BadImageError(f"cannot be read from its archive: {error}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return Held, (self.read(),)
        except BadImageError as error:
            return Unusable, (str(error),)


@functools.lru_cache(maxsize=1)
def _open(path: str, mtime_ns: int) -> "_Forwards":
    return _Forwards(path)


class _Forwards:
    """A gzipped file, read forwards; the last bytes are kept for threads that read in turn."""

    def __init__(self, path: str) -> None:
        self._path, self._lock = path, threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._file = gzip.open(self._path)  # noqa: SIM115 (kept for the next image)
        self._start = self._end = 0  # of what is kept
        self._kept: deque[bytes] = deque()

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            if offset < self._start:
                self._begin()
            for chunk in self._chunks(offset + size):
                self._kept.append(chunk)
                self._end += len(chunk)
                while self._start + len(self._kept[0]) <= min(offset, self._end - _KEPT_BYTES):
                    self._start += len(self._kept.popleft())
            content = b"".join(self._pieces(offset, offset + size))
        if len(content) < size:
            raise EOFError("it ends too early")
        return content

    def _chunks(self, end: int) -> Iterator[bytes]:
        while self._end < end and (chunk := self._file.read(_CHUNK_BYTES)):
            yield chunk

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        at = self._start
        for chunk in self._kept:
            yield chunk[max(0, start - at) : max(0, end - at)]
            at += len(chunk)


def _refuse_large(size: int) -> None:
    if size > _LARGEST_MEMBER_BYTES:
        raise BadImageError(
            f"too large: {size:,} bytes, at most {_LARGEST_MEMBER_BYTES:,} in an archive"
        )
