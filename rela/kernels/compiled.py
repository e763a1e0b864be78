"""How every kernel is compiled: without the interpreter lock, cached on disk, without fastmath."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Compile on first use. No fastmath: the same draw must round the same way on every machine."""
    return njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)(function)
