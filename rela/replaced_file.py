"""Small files that are replaced at once: a reader sees the old content or the new."""

import contextlib
import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of `path`; raises OSError, with what was there left as it was."""
    temporary = temporary_of(path)
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # of a killed process, or a link that leads elsewhere
    with open(temporary, "xb") as file:
        file.write(content)
    os.replace(temporary, path)


def temporary_of(path: Path) -> Path:
    """What a killed process may leave beside `path`."""
    return path.with_name(f".{path.name}.tmp")
