"""A side in a process of its own, where it may change what counts for the whole process."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def in_own_process(measure: Callable[..., float], *arguments: Any) -> Callable[[], float]:
    """`measure(*arguments)`, always in the same other process; `measure` stands in a module."""
    pool = ProcessPoolExecutor(1, get_context("spawn"))
    return lambda: pool.submit(measure, *arguments).result()
