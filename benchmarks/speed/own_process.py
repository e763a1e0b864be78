"""Sides in processes of their own, where they may change what counts for a whole process."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from typing import Any


@contextmanager
def in_own_processes(
    measures: dict[str, Callable[..., float]], *arguments: Any
) -> Iterator[dict[str, Callable[[], float]]]:
    """`measure(*arguments)` of each name, always in the same other process, until the end of `with`.

    A `measure` stands in a module.
    """
    with ExitStack() as stack:

        def side(measure: Callable[..., float]) -> Callable[[], float]:
            pool: Executor = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
            return lambda: pool.submit(measure, *arguments).result()

        yield {name: side(measure) for name, measure in measures.items()}
