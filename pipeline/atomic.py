"""Writing so that a reader sees the old content or the new, and never a part of it."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import AlreadyPublishedError, StorageError, storage_remedy
from pipeline.owner import is_abandoned, owner_token

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
