"""SHA-256 of files, in constant memory."""

import hashlib
from pathlib import Path

from rela.regular_file import regular_file

_CHUNK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """64 hex digits over the bytes of `path`."""
    digest = hashlib.sha256()
    with open(path, "rb", opener=regular_file) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
