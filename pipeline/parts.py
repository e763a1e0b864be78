"""Results computed in parts, each published atomically with its digest.

Any number of processes may fill one store; a part written twice has the same bytes. A part is its digest,
what it cost in wall and CPU seconds, and its content.
"""

import contextlib
import hashlib
import math
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.pipeline.files import (
    IrregularFileError,
    clear_abandoned_files,
    own_file,
    regular_file,
    replacing,
)
from rela.pipeline.lease import Leases, holders
from rela.pipeline.locks import hold, remove_if_free
from rela.pipeline.owner import describe
from rela.pipeline.spent import Spent

_DIGEST_BYTES = 32
_SPENT = struct.Struct("<dd")
_FORMAT = b"2"  # digested, so that parts in another layout count as missing
_LOCK_NAME = ".lock"
_PART_PREFIX = "part-"
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class PartStore:
    """A directory of `num_parts` finished or missing parts."""

    directory: Path
    num_parts: int

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Protect the parts from clean-ups while the body works on them.

        If it fails before the first part, such as for a choice that cannot be had, the store is removed.
        """
        lock = self.directory / _LOCK_NAME
        self.directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # removed again: `hold` raises
            _touch(lock)
        clear_abandoned_files(self.directory)
        try:
            with hold(lock):
                yield
        except BaseException:
            with contextlib.suppress(OSError):
                remove_if_free(lock, lambda: not self.finished())
            raise

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
        self,
        part: int,
        content: bytes | bytearray,
        spent: Spent | None = None,
        leases: Leases | None = None,
    ) -> None:
        """Publish one part with what it cost, and release its lease.

        Raises StorageError on a full disk.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        spent = spent or Spent()
        pieces = _SPENT.pack(spent.seconds, spent.cpu_seconds), content
        with replacing(self._path(part)) as temporary, open(temporary, "wb") as file:
            file.writelines((_digest(*pieces), *pieces))  # joined, a large part would be copied
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
        sound = len(body) >= _SPENT.size and _digest(body) == digest
        return body[_SPENT.size :] if sound else None

    def content_at(self, part: int) -> tuple[Path, int]:
        """The file of one part, and the offset of its content there, for readers of a piece of it."""
        return self._path(part), _DIGEST_BYTES + _SPENT.size

    def spent(self) -> Spent:
        """Total cost of all finished parts, over all processes and calls."""
        return sum((_spent_on(self._path(part)) for part in range(self.num_parts)), Spent())

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
                known.append(_spent_on(path).seconds)
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


class SharedParts:
    """The parts `todo` of a store, of which other processes may compute some; leases last for the body.

    `say_waiting` is called once, with the number of parts that others compute, if nothing else is left.
    """

    def __init__(
        self, store: PartStore, todo: list[int], say_waiting: Callable[[int], None]
    ) -> None:
        self.store = store
        self._todo, self._written, self._say_waiting = todo, set[int](), say_waiting
        self._leases = Leases(store.directory)

    def __enter__(self) -> "SharedParts":
        self._leases.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._leases.__exit__(*raised)

    def rounds(self) -> Iterator[Iterator[int]]:
        """Until none is missing: those that this process computes, and writes before the next round.

        Ends early if another process has joined all parts and removed them.
        """
        todo, has_waited = self._todo, False
        while todo and self.store.directory.is_dir():
            self._written.clear()
            yield self.store.claim(todo, self._leases)
            todo = [p for p in todo if p not in self._written and self.store.read(p) is None]
            if todo and not self._written:
                if not has_waited:
                    self._say_waiting(len(todo))
                has_waited = True
                time.sleep(_POLL_SECONDS)

    def write(self, part: int, content: bytes | bytearray, spent: Spent) -> None:
        """Publish a part that `rounds` gave, with what it cost."""
        self.store.write(part, content, spent, self._leases)
        self._written.add(part)


def _digest(*body: bytes | bytearray) -> bytes:
    digest = hashlib.sha256(_FORMAT)
    for piece in body:
        digest.update(piece)
    return digest.digest()


def _spent_on(path: Path) -> Spent:
    """The cost stored in a part; 0 for what is not a duration, as the digest is not checked here."""
    with open(path, "rb", opener=regular_file) as file:
        file.seek(_DIGEST_BYTES)
        stored = file.read(_SPENT.size)
    found = _SPENT.unpack(stored) if len(stored) == _SPENT.size else ()
    return Spent(*(value if 0 <= value < math.inf else 0.0 for value in found))


def _touch(path: Path) -> None:
    """Mark the file as used now, creating it if it is missing."""
    with open(path, "a", opener=own_file) as file:
        os.utime(file.fileno())


def remove_unused_parts(directory: Path) -> bool:
    """Remove a store that no process works on; returns whether it did."""
    lock = directory / _LOCK_NAME
    _touch(lock)  # older stores have no lock file
    return remove_if_free(lock)
