"""Compiled kernels: stored image → pixels. They release the interpreter lock, so plain threads scale.

In: bytes of a beton and a distribution of views. Out: uint8 views. Begin with `samples.py`.

Numba's disk cache notices changes only in the file that defines a kernel, not in the helpers it
calls, so the cache directory carries a digest of all of them.
"""

import hashlib
import os
import tempfile
from pathlib import Path

import numba


def _cache_directory() -> Path:
    """NUMBA_CACHE_DIR, else the user's cache, else (no home, or a read-only one) the temporary files."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    name = f"kernels-{sources.hexdigest()[:16]}"
    temporary = Path(tempfile.gettempdir()) / f"rela-{os.getuid()}" / name
    try:
        user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        chosen = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(user_cache) / "rela") / name
        chosen.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return temporary
    return chosen if os.access(chosen, os.W_OK) else temporary


_previous = numba.config.CACHE_DIR
numba.config.CACHE_DIR = str(_cache_directory())
try:  # Numba reads the setting when a kernel is defined
    from rela.data.kernels import colour, decode, draws, resample, samples
finally:
    numba.config.CACHE_DIR = _previous

__all__ = ["colour", "decode", "draws", "resample", "samples"]
