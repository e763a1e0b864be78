"""Whether anybody opens or reads a file, as the kernel sees it (inotify)."""

import ctypes
import os
from pathlib import Path

_ACCESS, _OPEN, _NONBLOCK = 0x1, 0x20, 0x800


class Watched:
    """A secret that nobody should look at."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"secret" * 1000)
        self.path = path
        library = ctypes.CDLL(None, use_errno=True)
        self._events = library.inotify_init1(_NONBLOCK)
        if library.inotify_add_watch(self._events, os.fsencode(path), _ACCESS | _OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify", str(path))

    def was_touched(self) -> bool:
        """Since the last time this was asked."""
        try:
            return bool(os.read(self._events, 1 << 16))
        except BlockingIOError:
            return False
