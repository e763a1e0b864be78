"""Memory of long jobs: mapped pages that were read are released, memory that a step frees is kept.

A memory-mapped file that is read to its end would otherwise count as memory of this process, and a CPU
training would page-fault its activations again at every step.
"""

import ctypes
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def release_pages(values: NDArray[Any]) -> None:
    """Take the pages of a read-only `np.memmap` out of the resident set; the page cache keeps them.

    Otherwise every page that was ever read counts as memory of this process, and a scheduler that
    limits it ends the process. Values stay valid. Nothing happens to other arrays.
    """
    if isinstance(values, np.memmap) and values.mode == "r" and isinstance(values.base, mmap.mmap):
        values.base.madvise(mmap.MADV_DONTNEED)


def blocks(values: NDArray[Any], num_rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """(first row, that one and those after it) of [N, D], `num_rows` at a time, then released."""
    for start in range(0, len(values), num_rows):
        yield start, values[start : start + num_rows]
        release_pages(values)


# Of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1  # bytes


def keep_freed_memory() -> None:
    """From now on this process reuses what its tensors and arrays free.

    By itself glibc maps every block above 32 MiB afresh and gives back the top of a heap that shrinks
    by 64 MiB, so that each training step on the CPU has its activations filled with zeros by the
    system, page fault by page fault. The process then stays as large as it once was, like PyTorch's on a
    GPU. Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
