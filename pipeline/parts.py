"""Results computed in parts, each published atomically with its digest.

Any number of processes may fill one store; a part written twice has the same bytes.
"""

import contextlib
import hashlib
import math
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rela.pipeline.files import (
    IrregularFileError,
    clear_abandoned_files,
    own_file,
    regular_file,
    write_atomic,
)
from rela.pipeline.lease import Leases, holders
from rela.pipeline.locks import hold, remove_if_free
from rela.pipeline.owner import describe

_DIGEST_BYTES = 32
_SECONDS = struct.Struct("<d")
_LOCK_NAME = ".lock"
_PART_PREFIX = "part-"


@dataclass(frozen=True)
class PartStore:
    """A directory of `num_parts` finished or missing parts."""

    directory: Path
    num_parts: int

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Protect the parts from clean-ups while the body works on them."""
        lock = self.directory / _LOCK_NAME
        self.directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # removed again: `hold` raises
            _touch(lock)
        clear_abandoned_files(self.directory)
        with hold(lock):
            yield

    def claim(self, parts: Iterable[int], leases: Leases) -> Iterator[int]:
        """Yield, one at a time, those of `parts` that are missing and that no other process computes.

        This process holds the lease of a part (see rela.pipeline.lease) until `write`.
        """
        for part in parts:
            if leases.take(self._path(part).name):
                if self.read(part) is None:
                    yield part
                else:  # computed since `parts` was listed
                    leases.release(self._path(part).name)

    def write(
        self, part: int, content: bytes, seconds: float = 0.0, leases: Leases | None = None
    ) -> None:
        """Publish one part with its cost in seconds, and release its lease.

        Raises StorageError on a full disk.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        body = _SECONDS.pack(seconds) + content
        write_atomic(self._path(part), hashlib.sha256(body).digest() + body)
        if leases is not None:
            leases.release(self._path(part).name)

    def read(self, part: int) -> bytes | None:
        """The content of one part; None if it is missing or damaged."""
        try:
            with open(self._path(part), "rb", opener=regular_file) as file:
                stored = file.read()
        except (FileNotFoundError, IrregularFileError):
            return None
        digest, body = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        sound = len(body) >= _SECONDS.size and hashlib.sha256(body).digest() == digest
        return body[_SECONDS.size :] if sound else None

    def seconds(self) -> float:
        """Total cost of all finished parts in seconds, over all processes and calls."""
        total = 0.0
        for part in range(self.num_parts):
            total += _seconds_of(self._path(part))
        return total

    def finished(self) -> list[Path]:
        """The files of all existing parts, the newest last, without checking their content."""
        found = []
        for path in self.directory.glob(f"{_PART_PREFIX}*"):
            with contextlib.suppress(OSError):  # just sealed and removed, or not a part
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found)]

    def recent_seconds(self, most: int = 5) -> float | None:
        """Mean cost in seconds of the `most` newest parts; None if there are none."""
        known = []
        for path in self.finished()[-most:]:
            with contextlib.suppress(OSError):  # likewise
                known.append(_seconds_of(path))
        return sum(known) / len(known) if known else None

    def workers(self) -> list[str]:
        """Descriptions of the processes that compute parts now (see rela.pipeline.lease)."""
        return sorted({describe(token) for token in holders(self.directory).values()})

    def missing(self, shard: int = 0, num_shards: int = 1) -> list[int]:
        """Missing parts of shard `shard` of `num_shards`."""
        mine = range(shard, self.num_parts, num_shards)
        return [part for part in mine if self.read(part) is None]

    def _path(self, part: int) -> Path:
        return self.directory / f"{_PART_PREFIX}{part:06d}"


def _seconds_of(path: Path) -> float:
    """The cost stored in a part; 0 if it is not a duration, as the digest is not checked here."""
    with open(path, "rb", opener=regular_file) as file:
        file.seek(_DIGEST_BYTES)
        stored = file.read(_SECONDS.size)
    seconds = float(_SECONDS.unpack(stored)[0]) if len(stored) == _SECONDS.size else 0.0
    return seconds if 0 <= seconds < math.inf else 0.0


def _touch(path: Path) -> None:
    """Mark the file as used now, creating it if it is missing."""
    with open(path, "a", opener=own_file) as file:
        os.utime(file.fileno())


def remove_unused_parts(directory: Path) -> bool:
    """Remove a store that no process works on; returns whether it did."""
    lock = directory / _LOCK_NAME
    _touch(lock)  # older stores have no lock file
    return remove_if_free(lock)
