"""Memory of long jobs: release file pages that were read, keep memory that a training step freed.

Otherwise a memory-mapped file that is read to its end counts as memory of this process, and a CPU
training page-faults its activations again in every step.
"""

import ctypes
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np


def release_pages(values: Any) -> None:
    """Drop the pages of a read-only `np.memmap`, or of stacked ones, from the resident set.

    Other arrays are unchanged.

    A scheduler with a memory limit would count them. The values stay valid, in the page cache.
    """
    for piece in getattr(values, "pieces", (values,)):  # of rela.representations.stacked
        if isinstance(piece, np.memmap) and piece.mode == "r" and isinstance(piece.base, mmap.mmap):
            piece.base.madvise(mmap.MADV_DONTNEED)


def blocks(values: Any, num_rows: int) -> Iterator[tuple[int, Any]]:
    """Yield (first row, block of `num_rows` rows) of an array or tensor [N, D].

    The pages of each block are released.
    """
    for start in range(0, len(values), num_rows):
        yield start, values[start : start + num_rows]
        release_pages(values)


# Of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1  # bytes


def keep_freed_memory() -> None:
    """Keep freed memory in this process for its next tensors and arrays.

    By default glibc maps every block above 32 MiB anew and returns the top of a heap that shrinks by 64
    MiB, so that the system zeroes the activations of each CPU training step, one page fault after
    another. The process then keeps its largest size, like PyTorch's allocator on a GPU. Without glibc
    nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
