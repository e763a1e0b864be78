"""Files: open only regular files, limit what is read, replace files atomically.

A pipe blocks its reader, a device may be endless, and a link leads elsewhere: opening one of these with
`opener=regular_file` raises OSError immediately. Replacing is atomic: a reader sees the old content or
the new content, never a mixture.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rela.pipeline.errors import AlreadyPublishedError, StorageError, storage_remedy
from rela.pipeline.owner import is_abandoned, owner_token

_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def fsync(path: Path) -> None:
    """Make the bytes of a file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(source: Path, destination: Path) -> None:
    """Rename a file over `destination`; after a power cut, the old file or the complete new one exists.

    The order matters: the bytes reach the disk before the name, and the name before this returns.
    """
    fsync(source)
    os.replace(source, destination)
    fsync(destination.parent)


@contextlib.contextmanager
def replacing(path: Path, clobber: bool = True, option: str = "--workspace") -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it durably replaces `path` if the body succeeds.

    Raises StorageError, with the old file intact, if writing fails (`option` is the command-line option
    that names the place); without `clobber`, AlreadyPublishedError if `path` exists by then.
    """
    temporary = path.with_name(f".{path.name}@{owner_token()}.tmp")
    try:
        yield temporary
        if clobber:
            replace_durably(temporary, path)
        else:
            fsync(temporary)
            _move_without_clobbering(temporary, path)
            fsync(path.parent)
    except FileExistsError as error:
        raise AlreadyPublishedError(f"another job has just made {path}") from error
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}; {storage_remedy(error, option)}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


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
    """Durably replace the content of `path`; raises as `replacing`."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def keep_record(path: Path, content: bytes) -> None:
    """Write a record that saves work next time, in a directory that is made if it is missing.

    Does nothing where this process may not write: several people share a workspace that one may change.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_abandoned_files(path.parent)
        write_atomic(path, content)
    except (OSError, StorageError) as error:
        cause = error.__cause__ if isinstance(error, StorageError) else error
        if not isinstance(cause, OSError) or cause.errno not in _NOT_OURS:
            raise


def clear_abandoned_files(directory: Path) -> None:
    """Remove temporary files that killed processes of this host left in `directory`."""
    for path in directory.glob(".*.tmp"):
        if is_abandoned(path):
            with contextlib.suppress(OSError):
                path.unlink()


_KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
_MOST_BYTES = 1 << 26


class IrregularFileError(OSError):
    """A pipe, folder, device, socket or link where a regular file is expected, or a file too large."""


def regular_file(path: str, flags: int) -> int:
    """Open the regular file at `path`, links followed, and return its descriptor."""
    # do not wait for the other end of a pipe; do not acquire a controlling terminal
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise _irregular(_KINDS.get(kind, "something else"), path)
    return descriptor


def own_file(path: str, flags: int) -> int:
    """Like `regular_file`, for files that are written in place or locked: links are refused too."""
    try:
        return regular_file(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _irregular("a link", path) from error
        raise


def read_regular(path: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """Return all bytes of a regular file; raises OSError if it has more than `most_bytes`."""
    with open(path, "rb", opener=regular_file) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        if num_bytes > most_bytes:
            found = f"found {num_bytes:,} bytes, expected at most {most_bytes:,}"
            raise IrregularFileError(errno.EFBIG, found, str(path))
        return file.read()


def directory_bytes(directory: Path) -> int:
    """Total size in bytes of all files below a directory; files removed meanwhile count as 0."""
    num_bytes = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            num_bytes += path.stat().st_size if path.is_file() else 0
    return num_bytes


def _irregular(what: str, path: str) -> IrregularFileError:
    return IrregularFileError(errno.EINVAL, f"found {what}, expected a regular file", str(path))


def replace_file(path: Path, content: bytes) -> None:
    """Atomically replace `path`, without waiting for the disk, which makes it cheap during training.

    Raises OSError, with the old file intact. For what may be lost in a power cut; else `write_atomic`.
    """
    temporary = temporary_of(path)
    temporary.unlink(missing_ok=True)  # left by a killed process, or a link that leads elsewhere
    with open(temporary, "xb") as file:
        file.write(content)
    os.replace(temporary, path)


def temporary_of(path: Path) -> Path:
    """The temporary file of `replace_file`, which a killed process may leave beside `path`."""
    return path.with_name(f".{path.name}.tmp")
