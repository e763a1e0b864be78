"""Results that grow in fixed parts: each is there whole, with its digest, or not at all.

Any number of processes may fill one store; a part written twice holds the same bytes.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.atomic import write_atomic

_DIGEST_BYTES = 32


@dataclass(frozen=True)
class PartStore:
    """A directory of `num_parts` finished or missing parts."""

    directory: Path
    num_parts: int

    def write(self, part: int, content: bytes) -> None:
        """Publish one part; raises StorageError on a full disk."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(part), hashlib.sha256(content).digest() + content)

    def read(self, part: int) -> bytes | None:
        """The content of one part, or None if it is absent or damaged and has to be made again."""
        try:
            stored = self._path(part).read_bytes()
        except FileNotFoundError:
            return None
        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else None

    def missing(self, shard: int = 0, num_shards: int = 1) -> list[int]:
        """Parts of shard `shard` of `num_shards` that still have to be made."""
        mine = range(shard, self.num_parts, num_shards)
        return [part for part in mine if self.read(part) is None]

    def _path(self, part: int) -> Path:
        return self.directory / f"part-{part:06d}"
