"""Who works on what at the moment, among processes that share nothing but a file system.

A lease is a small file that its holder touches every few seconds. One whose holder lives no more, or was
not touched for a while, as the file system's own clock tells, counts for nothing. Leases only save work:
whatever is done under one has to be right if two processes do it.
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
    """What this process holds in `directory`; given back at the end of the `with` block."""

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
            self.give_back(name)
        self._clock.unlink(missing_ok=True)

    def take(self, name: str) -> bool:
        """Whether nobody else holds `name`; from now on this process does, then."""
        if name in self._held:
            return True
        path = self.directory / f"{_PREFIX}{name}"
        if self._is_over(path):
            self._remove_if_still_over(path)
        try:
            with open(path, "x", encoding="utf-8") as file:
                self._held[name] = path
                file.write(self._token)
        except (FileExistsError, FileNotFoundError):  # somebody's, or all is done and cleared away
            return False
        except OSError:
            del self._held[name]
            path.unlink(missing_ok=True)
            raise
        return True

    def give_back(self, name: str) -> None:
        """Hold it no more."""
        path = self._held.pop(name, None)
        if path is not None and self._is_mine(path):
            path.unlink(missing_ok=True)

    def _is_mine(self, path: Path) -> bool:
        """Whether nobody has taken it over while this process was stopped."""
        try:
            return _token_in(path) == self._token
        except OSError:
            return False

    def _remove_if_still_over(self, path: Path) -> None:
        """Of several that find it over at once, the one that moves it removes it."""
        moved = path.with_name(f"{path.name}@{owner_token()}")
        try:
            path.rename(moved)
            if not self._is_over(moved):  # somebody was faster, and this is the new one
                moved.rename(path)
            with contextlib.suppress(IsADirectoryError):  # which is in nobody's way any more
                moved.unlink(missing_ok=True)
        except FileNotFoundError:
            return

    def _is_over(self, path: Path) -> bool:
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
                    with contextlib.suppress(OSError):  # of a directory that was just removed
                        os.utime(path)


def holders(directory: Path, seconds: float = LEASE_SECONDS) -> dict[str, str]:
    """Tokens of those who hold something in `directory` now, by its name; nothing is taken or changed.

    For people to look at: the age of a lease is measured by this machine's clock.
    """
    found = {}
    for path in directory.glob(f"{_PREFIX}*"):
        if "@" in path.name:  # a clock, or one that is being taken over
            continue
        with contextlib.suppress(OSError):  # given back just now
            token = _token_in(path)
            if not is_gone(token) and not _is_old(path, time.time(), seconds):
                found[path.name.removeprefix(_PREFIX)] = token
    return found


def _token_in(path: Path) -> str:
    """Who holds the lease; nobody's token if something else stands in its place."""
    try:
        with open(path, encoding="utf-8", errors="replace", opener=regular_file) as file:
            return file.read(_LONGEST_TOKEN)
    except IrregularFileError:
        return ""


def _is_old(path: Path, now: float, seconds: float) -> bool:
    """Whether nobody has touched it for so long; a time that is still to come was nobody's touch."""
    return abs(now - path.lstat().st_mtime) > seconds
