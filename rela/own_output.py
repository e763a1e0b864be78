"""Folders that hold pages and pictures made here, so that they are never taken for a user's images."""

import os
from pathlib import Path

_MARK = ".rela-output"


def make_output_folder(folder: Path) -> None:
    """Create `folder`, marked; one that was there before is left as it is, as others' images may be in it."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()


def is_output_folder(folder: Path) -> bool:
    """Whether it was made by `make_output_folder`."""
    # unlike Path.is_file, false in a folder that cannot be read
    return os.path.isfile(folder / _MARK)  # noqa: PTH113
