"""What is written outside of the workspace, where `--output` says: for people and other programs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rela.errors import UnavailableError
from rela.pipeline.errors import StorageError
from rela.pipeline.files import clear_abandoned_files, replacing

OPTION = "--output"


def require_folder(path: Path) -> None:
    """Raise UnavailableError unless the folder of `path` exists, StorageError unless it takes new files.

    It is called before any work.
    """
    if not path.parent.is_dir():
        raise UnavailableError(
            f"{path.parent}: no such folder to write {path.name} to; create it first"
        )
    require_writable(path.parent)


def require_writable(folder: Path) -> None:
    """Raise StorageError unless an existing folder takes new files; a read-only file system does not."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write in {folder}: it is read-only; choose a writable {OPTION}")


@contextmanager
def written(path: Path, clobber: bool = True) -> Iterator[Path]:
    """Yield a temporary file that becomes `path` if the body succeeds; raises as `replacing`.

    Those that killed processes left beside it are removed.
    """
    clear_abandoned_files(path.parent)
    with replacing(path, clobber, OPTION) as temporary:
        yield temporary
