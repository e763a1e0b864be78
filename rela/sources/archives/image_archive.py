"""A .zip or .tar of image folders, also a compressed .tar.

The names in it are understood as those of folders, in rela.sources.splits.layout.
"""

import contextlib
import itertools
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rela.errors import DataError, UnavailableError, one_line
from rela.pipeline.files import regular_file
from rela.sources.archives.compressed import CompressedRange, compression_of, refuse_large
from rela.sources.archives.tar_archives import (
    TARS,
    is_plain_file,
    leads_out,
    open_tar_file,
    walk_tar,
)
from rela.sources.image_file import BadImageError
from rela.sources.source import (
    FileRange,
    ImageSource,
    ListingProgress,
    Place,
    SourceOptions,
    Unusable,
)
from rela.sources.splits.layout import read_layout
from rela.sources.splits.tree import is_image_name, is_system_name, tree_of_names

WHAT = "an archive of image folders (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz)"
SUFFIXES = (".zip", *TARS)
OPTIONS = ("layout", "label_column", "split")
_LOOKED_AT = 2000  # members that tell image folders from WebDataset's shards
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field

Members = Iterable[tuple[str, Place]]


def recognises(path: Path) -> bool:
    """Whether `path` is a .zip, or a tar with images in folders and no labels of WebDataset.

    A compressed tar need not have folders: shards of WebDataset cannot be compressed.
    """
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
        in_folders = any("/" in stem for stem in stems) or (stems and compression_of(path))
        return bool(in_folders) and not (labels or has_cls)
    return False


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The images in the archive; raises DataError if it is damaged or holds a name twice."""
    is_zip = path.name.lower().endswith(".zip")
    return source_of(path, _zip_members(path) if is_zip else tar_members(path), options)


def source_of(path: Path, members: Members, options: SourceOptions) -> ImageSource:
    """The images among files of archives; those of a compressed tar in its order, which is read forwards.

    Raises DataError if a name occurs twice.
    """
    where = one_line(str(path))
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
    if any(isinstance(place, CompressedRange) for place in places.values()):
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


def tar_members(path: Path) -> Members:
    """(name, place) of every file; raises DataError for a damaged tar."""
    with open_tar_file(path) as file:
        is_compressed = compression_of(path) is not None
        mtime = path.stat().st_mtime_ns
        for member in walk_tar(file, path):
            place: Place = Unusable("no regular file in its archive")
            if is_plain_file(member):
                at, size = member.offset_data, member.size
                place = FileRange(str(path), at, size)
                if is_compressed:
                    place = CompressedRange(str(path), mtime, at, size)
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
        refuse_large(self.size)
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
