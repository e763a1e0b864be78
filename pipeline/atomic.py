"""Writing so that a reader sees the old content or the new, and never a part of it."""

import contextlib
import os
from pathlib import Path

from pipeline.errors import StorageError, storage_remedy
from pipeline.owner import is_abandoned, owner_token


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


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step.

    Raises StorageError, leaving whatever was there before, when the disk is full or read-only.
    """
    temporary = path.with_name(f".{path.name}@{owner_token()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror}; {storage_remedy(error)}"
        ) from error


def clear_abandoned_files(directory: Path) -> None:
    """Remove what processes of this host that were killed in `write_atomic` left in `directory`."""
    for path in directory.glob(".*.tmp"):
        if is_abandoned(path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
