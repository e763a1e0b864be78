"""Fingerprints: SHA-256 of what decides a result, never of where, when or how fast it was computed."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rela.pipeline.files import regular_file

_CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """Canonical JSON of `value`: sorted keys, no spaces, ASCII, no NaN or Infinity.

    Equal values give equal bytes on every machine and Python version. Raises TypeError for values that
    JSON cannot hold and for keys that are not strings (they would be read back as strings, in another
    order), and ValueError for NaN and Infinity.
    """
    _refuse_other_keys(value)
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def _refuse_other_keys(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} of canonical JSON is not a string")
            _refuse_other_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_other_keys(item)


def fingerprint(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes, read in constant memory."""
    digest = hashlib.sha256()
    with open(path, "rb", opener=regular_file) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class OrderedDigest:
    """One SHA-256 (64 hex digits) of a sequence of hex digests; their order matters."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()

    def add(self, digest: str) -> None:
        """The next of them."""
        self._whole.update(digest.encode("ascii"))
        self._whole.update(b"\n")

    def hexdigest(self) -> str:
        """Of all until now."""
        return self._whole.hexdigest()


def ordered_digest(digests: Iterable[str]) -> str:
    """The `OrderedDigest` of a sequence that is at hand."""
    whole = OrderedDigest()
    for digest in digests:
        whole.add(digest)
    return whole.hexdigest()
