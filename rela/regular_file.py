"""Opening what is a file, and nothing else that may stand in its place (as `pipeline.regular_file` does).

A pipe keeps its reader waiting for ever, a device may never end, and a link leads elsewhere. Whoever opens
one of these here gets an OSError at once. For `open(path, opener=...)`.
"""

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
_MOST_BYTES = 1 << 26


class IrregularFileError(OSError):
    """Something else stands where a regular file is expected."""


def regular_file(path: str, flags: int) -> int:
    """A descriptor of the file at `path`, or of the one that a link there leads to."""
    # without waiting for somebody at the other end of a pipe, or making a terminal one's own
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise _irregular(_KINDS.get(kind, "something else"), path)
    return descriptor


def own_file(path: str, flags: int) -> int:
    """The same for files that are written in place or locked: a link is refused, too."""
    try:
        return regular_file(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _irregular("a link", path) from error
        raise


def read_regular(path: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """All bytes of a small file; OSError if it is larger, or none."""
    with open(path, "rb", opener=regular_file) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        if num_bytes > most_bytes:
            found = f"found {num_bytes:,} bytes, expected at most {most_bytes:,}"
            raise IrregularFileError(errno.EFBIG, found, str(path))
        return file.read()


def _irregular(what: str, path: str) -> IrregularFileError:
    return IrregularFileError(errno.EINVAL, f"found {what}, expected a regular file", str(path))
