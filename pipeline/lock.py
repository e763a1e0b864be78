"""One job at a time in a directory: an advisory lock that the kernel releases however its holder ends."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BusyError


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the body; raises BusyError naming the holder if it is taken."""
    with open(path, "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BusyError(f"{path.parent} is in use by {holder}; wait for it to end") from error
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield
