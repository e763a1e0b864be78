"""Who uses an artifact now, and when it was used last: what a clean-up must leave alone.

A job holds a shared advisory lock on the manifest of everything it reads. The kernel releases it
however the job ends, also on another machine. The manifest's modification time is the last use.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.lock import NO_LOCKS, is_still, removed
from pipeline.manifest import MANIFEST_NAME
from pipeline.owner import owner_token
from pipeline.regular_file import regular_file

REMOVED_PREFIX = ".removed-"


@contextlib.contextmanager
def in_use(*directories: Path) -> Iterator[None]:
    """Hold these artifacts for the body, and note that they are used now.

    On file systems without locks they are noted alone. Raises BusyError for one that a clean-up
    removed between being found and being held.
    """
    with contextlib.ExitStack() as stack:
        for directory in directories:
            stack.enter_context(hold(directory / MANIFEST_NAME))
            mark_used(directory)
        yield


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """A shared lock on the file `path`, with which its directory is not removed."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb", opener=regular_file))
        except FileNotFoundError:
            raise removed(path.parent) from None
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        if not is_still(path, file.fileno()):
            raise removed(path.parent)
        yield


def remove_if_free(path: Path, still: Callable[[], bool] = lambda: True) -> bool:
    """Remove the directory of the lock file `path` unless somebody holds it; returns whether it did.

    `still` is asked once nobody can come in between. It disappears in one rename, so nothing of it
    can be found half removed.
    """
    with contextlib.ExitStack() as stack:
        try:
            # writable: NFS wants it for this lock
            file = stack.enter_context(open(path, "rb+", opener=regular_file))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EROFS, *NO_LOCKS):
                return False
            raise
        if not is_still(path, file.fileno()) or not still():
            return False
        hidden = path.parent.with_name(f"{REMOVED_PREFIX}{path.parent.name}@{owner_token()}")
        path.parent.rename(hidden)
        shutil.rmtree(hidden)
        return True


def mark_used(directory: Path) -> None:
    """Note that the artifact is used now; a read-only one stays as it is."""
    with contextlib.suppress(OSError):
        os.utime(directory / MANIFEST_NAME)


def last_used(directory: Path) -> float:
    """When the artifact was last used, in seconds since 1970."""
    return (directory / MANIFEST_NAME).stat().st_mtime


def remove_unused(directory: Path, used_before: float) -> bool:
    """Remove an artifact that no job holds and that was last used before `used_before`."""
    path = directory / MANIFEST_NAME
    return remove_if_free(path, lambda: last_used(directory) < used_before)


def is_held(directory: Path) -> bool:
    """Whether some job uses the artifact at this moment, as far as locks can tell."""
    try:
        with open(directory / MANIFEST_NAME, "rb+", opener=regular_file) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # read-only, or no locks: nothing is known, and nothing will be removed
    return False
