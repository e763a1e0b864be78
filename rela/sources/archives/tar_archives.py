"""Members of a tar in order, with headers that are not trusted.

Only headers are read: nothing is extracted, links are not followed, names are not used as paths. By itself
`tarfile` reads as many bytes as a header claims, and takes a damaged header for the end.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rela.errors import DataError, UnavailableError, one_line
from rela.sources.archives.compressed import open_forwards

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
_LONGEST_HEADER_BYTES = 1 << 20  # with all its extensions; names have a few hundred
_PADDING_BYTES = 1 << 20
_BLOCK_BYTES = 512


def open_tar_file(path: Path) -> IO[bytes]:
    """Open a tar, compressed or not; raises UnavailableError if it cannot be read."""
    try:
        return open_forwards(path)
    except OSError as error:
        raise UnavailableError(f"{one_line(str(path))} cannot be read: {error.strerror}") from error


def walk_tar(file: IO[bytes], path: Path) -> Iterator[tarfile.TarInfo]:
    """Every member of an open tar; `path` is for messages.

    Raises DataError for a tar that is damaged, cut off, or followed by other data.
    """
    name = one_line(str(path))
    try:
        headers: Any = _Headers(file)
        tar: Any
        with tarfile.open(fileobj=headers, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # tarfile keeps them all, millions of them
                if member.size < 0 or tar.offset <= member.offset:  # an endless loop
                    raise tarfile.ReadError(f"a header claims {member.size:,} bytes")
                yield member
            file.seek(tar.offset)
            padding = file.read(_PADDING_BYTES)
    except Exception as error:  # tarfile raises errors of any type
        what = str(error).strip() or type(error).__name__
        raise DataError(f"{name} is damaged, or not a tar: {one_line(what)}") from error
    if len(padding) < _BLOCK_BYTES:
        raise DataError(f"{name} is cut off: the end mark is missing; copy or download it again")
    if padding.strip(b"\0"):
        raise DataError(
            f"{name} is damaged, or several tars in one: found data after the end mark at byte "
            f"{tar.offset:,}"
        )


def is_plain_file(member: tarfile.TarInfo) -> bool:
    """Whether its bytes are in the archive unchanged: not a link, a device or a sparse file."""
    return member.isreg() and member.sparse is None  # type: ignore[attr-defined]


def leads_out(name: str) -> bool:
    """Whether the name leads out of the folder that the archive would be extracted to."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


class _Headers:
    """A tar file from which `tarfile` can read headers only, not as many bytes as a header claims."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._file.read(size)
