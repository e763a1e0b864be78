"""Files compressed by gzip, bzip2 or xz, read forwards: the way to an offset leads through all before it.

Memory is bounded, whatever a file claims: xz's dictionary is limited, and only the last bytes are kept.
"""

import bz2
import functools
import gzip
import io
import lzma
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from rela.pipeline.files import regular_file
from rela.sources.image_file import BadImageError
from rela.sources.source import Held, Unusable

LARGEST_MEMBER_BYTES = 1 << 28  # uncompressed: more than Pillow's largest image of 8 bits
_CHUNK_BYTES, _KEPT_BYTES = 1 << 20, 1 << 26
_XZ_MEMORY_BYTES = 1 << 27  # `xz -9` needs 65 MiB
ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


class _Xz(io.RawIOBase):
    """A file of xz streams; Python's own reader has no limit of memory."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", opener=regular_file)  # noqa: SIM115 (closed with this)
        self._begin()

    def _begin(self) -> None:
        self._file.seek(0)
        self._at, self._decoder = 0, self._new_decoder()

    @staticmethod
    def _new_decoder() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._read(len(buffer)) if len(buffer) else b""
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _read(self, size: int) -> bytes:
        while True:
            more = b""
            if self._decoder.eof:  # of one stream, which others may follow
                more = (self._decoder.unused_data or self._file.read(_CHUNK_BYTES)).lstrip(b"\0")
                if not more:
                    return b""
                self._decoder = self._new_decoder()
            elif self._decoder.needs_input and not (more := self._file.read(_CHUNK_BYTES)):
                raise EOFError("it ends too early")
            try:
                found = self._decoder.decompress(more, size)
            except lzma.LZMAError as error:
                if "limit" not in str(error):
                    raise
                mebibytes = _XZ_MEMORY_BYTES >> 20
                raise lzma.LZMAError(
                    f"it needs more than {mebibytes} MiB to unpack; decompress it with unxz"
                ) from error
            if found:
                return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        if offset < self._at:
            self._begin()
        while self._at < offset and (found := self._read(min(_CHUNK_BYTES, offset - self._at))):
            self._at += len(found)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True)
class Compression:
    """How a file is compressed: its first bytes, what opens it, and the program that undoes it."""

    begins: bytes
    open: Callable[[Path], IO[bytes]]
    undone_by: str


_COMPRESSIONS = (
    Compression(b"\x1f\x8b", lambda path: cast(IO[bytes], gzip.GzipFile(path)), "gunzip"),
    Compression(b"BZh", lambda path: cast(IO[bytes], bz2.BZ2File(path)), "bunzip2"),
    Compression(b"\xfd7zXZ\0", lambda path: io.BufferedReader(_Xz(path), _CHUNK_BYTES), "unxz"),
)


def compression_of(path: Path) -> Compression | None:
    """How the file is compressed, by its first bytes; raises OSError if it cannot be read."""
    with open(path, "rb", opener=regular_file) as file:
        start = file.read(8)
    return next((found for found in _COMPRESSIONS if start.startswith(found.begins)), None)


def open_forwards(path: Path) -> IO[bytes]:
    """The content of a file, without its compression if it has one; raises OSError."""
    compression = compression_of(path)
    return compression.open(path) if compression else open(path, "rb", opener=regular_file)


@dataclass(frozen=True, slots=True)
class CompressedRange:
    """`size` bytes from `offset` of a compressed file. Pickling it reads its bytes and pickles those."""

    path: str
    mtime_ns: int
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes; raises BadImageError if they cannot be read."""
        refuse_large(self.size)
        try:
            return _open(self.path, self.mtime_ns).read(self.offset, self.size)
        except ERRORS as error:
            raise BadImageError(f"cannot be read from its archive: {error}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return Held, (self.read(),)
        except BadImageError as error:
            return Unusable, (str(error),)


def refuse_large(size: int) -> None:
    """Raise BadImageError for more bytes than an image has."""
    if size > LARGEST_MEMBER_BYTES:
        raise BadImageError(
            f"too large: {size:,} bytes, at most {LARGEST_MEMBER_BYTES:,} in an archive"
        )


@functools.lru_cache(maxsize=1)
def _open(path: str, mtime_ns: int) -> "_Forwards":
    return _Forwards(path)


class _Forwards:
    """A compressed file, read forwards; the last bytes are kept for threads that read in turn."""

    def __init__(self, path: str) -> None:
        self._path, self._lock = path, threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._file = open_forwards(Path(self._path))  # kept for the next image
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
