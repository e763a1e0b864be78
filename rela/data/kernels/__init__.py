"""Compiled kernels: stored image → pixels. They release the interpreter lock, so plain threads scale.

In: bytes of a beton and a distribution of views. Out: uint8 views. Begin with `samples.py`.
"""

import numba

from rela.data.kernel_cache import kernel_cache

_previous = numba.config.CACHE_DIR
numba.config.CACHE_DIR = str(kernel_cache())
try:  # Numba reads the setting when a kernel is defined
    from rela.data.kernels import colour, decode, draws, resample, samples
finally:
    numba.config.CACHE_DIR = _previous

__all__ = ["colour", "decode", "draws", "resample", "samples"]
