"""Sides in processes of their own, where they may change what counts for a whole process, or hang."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from typing import Any


@contextmanager
def in_own_processes(
    measures: dict[str, Callable[..., float]],
    *arguments: Any,
    timeout_seconds: float | None = None,
) -> Iterator[dict[str, Callable[[], float]]]:
    """`measure(*arguments)` of each name, always in the same other process, until the end of `with`.

    A `measure` stands in a module. A side raises TimeoutError when a measurement takes too long.
    """
    with ExitStack() as stack:

        def side(measure: Callable[..., float]) -> Callable[[], float]:
            pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=os.setsid)
            stack.callback(_end, pool.submit(os.getpid).result())
            return lambda: pool.submit(measure, *arguments).result(timeout_seconds)

        yield {name: side(measure) for name, measure in measures.items()}


def _end(pid: int) -> None:
    """With the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
