"""Files: open only regular ones, read them bounded, replace them at once.

A pipe keeps its reader waiting for ever, a device may never end, and a link leads elsewhere: opening
one of these with `opener=regular_file` raises OSError at once. Replacing is atomic: a reader sees the
old content or the new, never a part of it.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rela.pipeline.errors import AlreadyPublishedError, StorageError, storage_remedy
from rela.pipeline.owner import is_abandoned, owner_token

_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def fsync_directory(path: Path) -> None:
    """Make the names inside `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make the bytes of `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, clobber: bool = True, option: str = "--workspace") -> Iterator[Path]:
    """A path beside `path` to write a file to; it takes its place, durable, if the body ends well.

    Raises StorageError, leaving whatever was there before, when the disk is full or read-only (`option`
    is where a person chose the place), and without `clobber` AlreadyPublishedError for a file that is
    there by then.
    """
    temporary = path.with_name(f".{path.name}@{owner_token()}.tmp")
    try:
        yield temporary
        fsync_file(temporary)
        if clobber:
            os.replace(temporary, path)
        else:
            _move_without_clobbering(temporary, path)
        fsync_directory(path.parent)
    except FileExistsError as error:
        raise AlreadyPublishedError(f"{path} was made by another job just now") from error
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}; {storage_remedy(error, option)}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _move_without_clobbering(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if destination.exists():
            raise FileExistsError(errno.EEXIST, "already there", str(destination)) from error
        os.rename(source, destination)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; raises as `replacing`."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def clear_abandoned_files(directory: Path) -> None:
    """Remove what processes of this host that were killed in `write_atomic` left in `directory`."""
    for path in directory.glob(".*.tmp"):
        if is_abandoned(path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


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


def directory_bytes(directory: Path) -> int:
    """Bytes of all files below a directory; files that a job removes meanwhile do not count."""
    num_bytes = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            num_bytes += path.stat().st_size if path.is_file() else 0
    return num_bytes


def _irregular(what: str, path: str) -> IrregularFileError:
    return IrregularFileError(errno.EINVAL, f"found {what}, expected a regular file", str(path))


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of `path`; raises OSError, with what was there left as it was."""
    temporary = temporary_of(path)
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # of a killed process, or a link that leads elsewhere
    with open(temporary, "xb") as file:
        file.write(content)
    os.replace(temporary, path)


def temporary_of(path: Path) -> Path:
    """What a killed process may leave beside `path`."""
    return path.with_name(f".{path.name}.tmp")
