"""Locks: exclusive work in a directory, shared use of an artifact.

A job holds an exclusive lock where it writes, and a shared lock on the manifest of every artifact that it
reads, which protects them from clean-ups. The kernel releases the locks when the job ends, also on another
machine. The modification time of a manifest is the time of its last use.
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
_ATTEMPTS, _PAUSE_SECONDS = 4, 0.05  # `holder` also takes the lock briefly


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the body; raises BusyError naming the holder if it is taken.

    File systems without locks use a lease, which outlives a dead machine by a minute. Also raises
    BusyError if the directory was removed before the lock was held.
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
    """Whether the opened and locked file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def removed(directory: Path) -> BusyError:
    """The error to raise if `is_still` is false."""
    return BusyError(f"{directory} was just removed; run the command again")


def holder(path: Path) -> str | None:
    """Description of the process that holds the lock file `path` now; None if it is free."""
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
    """Try briefly to lock the file; return whether it is locked."""
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
    """Hold these artifacts for the body, and mark them as used now.

    File systems without locks only mark them. Raises BusyError for an artifact that a clean-up removed
    before it was held.
    """
    with contextlib.ExitStack() as stack:
        for directory in directories:
            stack.enter_context(hold(directory / MANIFEST_NAME))
            mark_used(directory)
        yield


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold a shared lock on the file `path`, so that no clean-up removes its directory."""
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
    """Remove the directory of the lock file `path` if no process holds it; returns whether it did.

    `still` is evaluated under the lock. The directory disappears in one rename, so it is never seen partly
    removed.
    """
    with contextlib.ExitStack() as stack:
        try:
            # writable: NFS requires it for an exclusive lock
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
    shutil.rmtree(hidden)  # after closing: NFS keeps files that are open under another name
    return True


def mark_used(directory: Path) -> None:
    """Mark the artifact as used now; a read-only one is left unchanged."""
    with contextlib.suppress(OSError):
        os.utime(directory / MANIFEST_NAME)


def last_used(directory: Path) -> float:
    """Time of the last use, in seconds since 1970."""
    return (directory / MANIFEST_NAME).stat().st_mtime


def remove_unused(directory: Path, used_before: float) -> bool:
    """Remove an artifact that no job holds and whose last use was before `used_before`."""
    path = directory / MANIFEST_NAME
    return remove_if_free(path, lambda: last_used(directory) < used_before)


def is_held(directory: Path) -> bool:
    """Whether a job holds the artifact now, as far as locks can tell."""
    try:
        with open(directory / MANIFEST_NAME, "rb+", opener=regular_file) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # read-only or no locks: unknown, and no clean-up will remove it
    return False
