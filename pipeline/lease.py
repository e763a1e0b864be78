"""Leases: which process is working on what, for processes that share only a file system.

A lease is a small file that its holder touches every few seconds. It expires when its holder has ended, or
when it was not touched for a while, by the clock of the file system. Leases only avoid duplicate work: work
done under a lease must be correct even if two processes do it.
"""

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType

from rela.pipeline.files import IrregularFileError, regular_file
from rela.pipeline.owner import is_gone, owner_token

LEASE_SECONDS = 60.0
_TOUCHES_PER_LEASE = 6
_LONGEST_TOKEN = 400
_PREFIX = ".lease-"


class Leases:
    """Leases of this process in `directory`; released at the end of the `with` block."""

    def __init__(self, directory: Path, seconds: float = LEASE_SECONDS) -> None:
        self.directory, self.seconds = directory, seconds
        self._held: dict[str, Path] = {}
        self._token = owner_token()
        self._clock = directory / f"{_PREFIX}clock@{self._token}"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)

    def __enter__(self) -> "Leases":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        for name in list(self._held):
            self.release(name)
        self._clock.unlink(missing_ok=True)

    def take(self, name: str) -> bool:
        """Take the lease `name`; returns False if another process holds it."""
        if name in self._held:
            return True
        path = self.directory / f"{_PREFIX}{name}"
        if self._is_expired(path):
            self._remove_if_still_expired(path)
        try:
            with open(path, "x", encoding="utf-8") as file:
                self._held[name] = path
                file.write(self._token)
        except (
            FileExistsError,
            FileNotFoundError,
        ):  # held by another process, or the directory was removed
            return False
        except OSError:
            del self._held[name]
            path.unlink(missing_ok=True)
            raise
        return True

    def release(self, name: str) -> None:
        """Release the lease `name`."""
        path = self._held.pop(name, None)
        if path is not None and self._is_mine(path):
            path.unlink(missing_ok=True)

    def _is_mine(self, path: Path) -> bool:
        """Whether no process has taken the lease over while this one was suspended."""
        try:
            return _token_in(path) == self._token
        except OSError:
            return False

    def _remove_if_still_expired(self, path: Path) -> None:
        """Remove an expired lease; of several processes, the one that renames it does."""
        moved = path.with_name(f"{path.name}@{owner_token()}")
        try:
            path.rename(moved)
            if not self._is_expired(moved):  # another process was faster: this is its new lease
                moved.rename(path)
            with contextlib.suppress(IsADirectoryError):  # renamed away, it is harmless
                moved.unlink(missing_ok=True)
        except FileNotFoundError:
            return

    def _is_expired(self, path: Path) -> bool:
        try:
            token = _token_in(path)
            self._clock.touch()
            return is_gone(token) or _is_old(path, self._clock.stat().st_mtime, self.seconds)
        except FileNotFoundError:
            return False

    def _keep(self) -> None:
        while not self._end.wait(self.seconds / _TOUCHES_PER_LEASE):
            for path in list(self._held.values()):
                if self._is_mine(path):
                    with contextlib.suppress(OSError):  # the directory was just removed
                        os.utime(path)


def holders(directory: Path, seconds: float = LEASE_SECONDS) -> dict[str, str]:
    """Tokens of the current holders in `directory`, by the name of their lease; changes nothing.

    For display only: the age of a lease is measured by this machine's clock.
    """
    found = {}
    for path in directory.glob(f"{_PREFIX}*"):
        if "@" in path.name:  # a clock, or a lease being taken over
            continue
        with contextlib.suppress(OSError):  # just released
            token = _token_in(path)
            if not is_gone(token) and not _is_old(path, time.time(), seconds):
                found[path.name.removeprefix(_PREFIX)] = token
    return found


def _token_in(path: Path) -> str:
    """The token of the holder; empty if `path` is not a regular file."""
    try:
        with open(path, encoding="utf-8", errors="replace", opener=regular_file) as file:
            return file.read(_LONGEST_TOKEN)
    except IrregularFileError:
        return ""


def _is_old(path: Path, now: float, seconds: float) -> bool:
    """Whether the last touch is more than `seconds` ago, or that far in the future, which is not a touch."""
    return abs(now - path.lstat().st_mtime) > seconds
