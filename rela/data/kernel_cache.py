"""Where compiled kernels are kept: a directory that nobody else can write to.

Numba's cache holds pickles, which run code when they are loaded. A directory that belongs to another user,
or that others may write to, is never used.
"""

import atexit
import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

_KERNELS = Path(__file__).parent / "kernels"


def kernel_cache() -> Path:
    """A directory for kernels of this version of their sources.

    Below NUMBA_CACHE_DIR, the user's cache, or the temporary files; without a private place there, a
    new one that is removed when this process ends, so that the next one compiles again.
    """
    for place in kernel_cache_places():
        if _is_private(place):
            return place
    new = Path(tempfile.mkdtemp(prefix="rela-kernels-"))
    atexit.register(shutil.rmtree, new, ignore_errors=True)
    return new


def kernel_cache_places() -> list[Path]:
    """The directories to try, best first.

    Numba notices changes only in the file that defines a kernel, not in the helpers that it calls, so
    the names carry a digest of all of them.
    """
    sources = hashlib.sha256()
    for path in sorted(_KERNELS.glob("*.py")):
        sources.update(path.read_bytes())
    name = f"kernels-{os.getuid()}-{sources.hexdigest()[:16]}"
    parents = []
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        parents.append(Path(chosen))
    else:
        with contextlib.suppress(RuntimeError):  # a user without a home
            parents.append(
                Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rela"
            )
    return [parent / name for parent in [*parents, Path(tempfile.gettempdir())]]


def _is_private(directory: Path) -> bool:
    """Make the directory if it is missing; whether it is this user's, and nobody else can write to it."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()  # not through a link, whose owner may lead it elsewhere
    except OSError:
        return False
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return is_ours and not found.st_mode & 0o022 and os.access(directory, os.W_OK)
