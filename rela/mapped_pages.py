"""Files that are read through a memory map from beginning to end, without filling the memory."""

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
