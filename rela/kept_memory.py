"""Memory that a step frees is kept for the next one, instead of going back to the system."""

import ctypes

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
