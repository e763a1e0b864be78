"""One job at a time in a directory: an advisory lock that the kernel releases however its holder ends."""

import contextlib
import errno
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pipeline.errors import BusyError
from pipeline.lease import Leases, holders
from pipeline.owner import describe, printable
from pipeline.regular_file import own_file

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
