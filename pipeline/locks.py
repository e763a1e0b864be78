"""Locks: exclusive work in a directory, shared use of an artifact.

A job holds an exclusive lock where it writes and a shared one on the manifest of everything it reads,
so that a clean-up leaves it alone. The kernel releases both however the job ends, also on another
machine. The manifest's modification time is the last use.
"""

import contextlib
import errno
import fcntl
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from rela.pipeline.errors import BusyError
from rela.pipeline.files import own_file, regular_file
from rela.pipeline.lease import Leases, holders
from rela.pipeline.manifest import MANIFEST_NAME
from rela.pipeline.owner import describe, owner_token, printable

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_ATTEMPTS, _PAUSE_SECONDS = 4, 0.05  # `holder` takes a lock for a moment, too


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the body; raises BusyError naming the holder if it is taken.

    On file systems without locks a lease does, which lasts a minute beyond the death of its machine.
    Raises BusyError, too, if the directory was removed before it was held.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(
                open(path, "a+", encoding="utf-8", errors="replace", opener=own_file)
            )
        except FileNotFoundError:
            raise removed(path.parent) from None
        try:
            is_free = _lock_soon(file)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            is_free = stack.enter_context(Leases(path.parent)).take(path.name)
        if not is_free:
            raise BusyError(f"{path.parent} is in use by {_written(file)}; wait for it to end")
        if not is_still(path, file.fileno()):
            raise removed(path.parent)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def is_still(path: Path, descriptor: int) -> bool:
    """Whether the file that was opened and locked is the one that others will find."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def removed(directory: Path) -> BusyError:
    """What to raise if it is not."""
    return BusyError(f"{directory} was removed just now; run the command again")


def holder(path: Path) -> str | None:
    """Who holds the lock file `path` at this moment, in words; None if nobody does."""
    try:
        with open(path, encoding="utf-8", errors="replace", opener=own_file) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _written(file)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                token = holders(path.parent).get(path.name)
                return None if token is None else describe(token)
    except FileNotFoundError:
        pass
    return None


def _lock_soon(file: TextIO) -> bool:
    """Whether the file could be locked, at once or a moment later."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _written(file: TextIO) -> str:
    file.seek(0)
    return printable(file.read(200).strip()) or "another process"


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
