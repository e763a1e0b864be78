"""One job at a time in a directory: an advisory lock that the kernel releases however its holder ends."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BusyError
from pipeline.lease import Leases

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the body; raises BusyError naming the holder if it is taken.

    On file systems without locks a lease does, which lasts a minute beyond the death of its machine.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "a+", encoding="ascii"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = True
        except BlockingIOError:
            is_free = False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            is_free = stack.enter_context(Leases(path.parent)).take(path.name)
        if not is_free:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BusyError(f"{path.parent} is in use by {holder}; wait for it to end")
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield
