"""A pool of processes that returns results in order and raises an error if a process dies at any time.

Every worker has its own pipe. The standard library's pool shares one: a worker that is killed while
it writes a result leaves half a message in it, and the reader waits for the rest forever.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

from rela.pipeline.processes import end_with_parent

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
_AHEAD_PER_WORKER = 4


class WorkerDiedError(Exception):
    """A worker process was killed, ran out of memory or crashed."""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: int | None = None  # its only task: with two, both sides could block while sending


class WorkerPool:
    """At most `num_workers` spawned processes, started when they are needed first.

    They end with the `with` block, and with this process however it ends.
    """

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.kill()
            worker.process.join()
        self._workers.clear()

    def map(
        self, function: Callable[[_Task], _Result], tasks: Sequence[_Task]
    ) -> Iterator[_Result]:
        """function(task) for every task, in the order of `tasks`.

        At most a few results are buffered. Exceptions of `function` are raised here; a dead worker raises
        WorkerDiedError. Both end all processes, and so does an iteration that is given up.
        """
        missing = min(self._num_workers, len(tasks)) - len(self._workers)
        self._workers += _start(missing)
        workers, ready, given = self._workers, dict[int, _Result](), 0

        def give(limit: int) -> None:
            nonlocal given
            for worker in workers:
                if worker.task is None and given < min(limit, len(tasks)):
                    with _died_if_broken():
                        worker.connection.send((function, tasks[given]))
                    worker.task, given = given, given + 1

        is_finished = False
        try:
            for wanted in range(len(tasks)):
                limit = wanted + _AHEAD_PER_WORKER * len(workers)
                give(limit)
                while wanted not in ready:
                    busy = {w.connection: w for w in workers if w.task is not None}
                    for connection in wait(list(busy)):
                        worker = busy[connection]  # type: ignore[index]
                        with _died_if_broken():
                            result = worker.connection.recv()
                        if isinstance(result, BaseException):
                            raise result
                        assert worker.task is not None
                        ready[worker.task] = result
                        worker.task = None
                    give(limit)
                is_finished = wanted == len(tasks) - 1
                yield ready.pop(wanted)
        finally:
            if not is_finished:
                self.close()


def ordered_map(
    function: Callable[[_Task], _Result], tasks: Sequence[_Task], num_workers: int
) -> Iterator[_Result]:
    """`WorkerPool.map` by processes that end with the iteration."""
    with WorkerPool(num_workers) as pool:
        yield from pool.map(function, tasks)


@contextlib.contextmanager
def _died_if_broken() -> Iterator[None]:
    """Turn the end of a pipe, between or within messages, into WorkerDiedError."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise WorkerDiedError("a worker process died") from error


def _start(num_workers: int) -> list[_Worker]:
    context = multiprocessing.get_context("spawn")
    workers = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:  # processes started while SIGINT is blocked never receive it
        for _ in range(num_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
            with _no_main_module():
                process.start()
            theirs.close()  # so that the pipe ends when the worker dies
            workers.append(_Worker(process, ours))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return workers


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep workers from importing the main module, which they do not need.

    A user's script without `if __name__ == "__main__"` would start the same work again.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(connection: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, task = connection.recv()
            try:
                result = function(task)
            except Exception as error:
                result = error
            connection.send(result)
