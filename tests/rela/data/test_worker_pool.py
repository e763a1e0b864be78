"""The pool behind conversion: order, errors, and workers that die at the worst moment."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run_python

from rela.data.beton.worker_pool import WorkerDiedError, WorkerPool, ordered_map


def slow_if_even(number: int) -> int:
    time.sleep(0.02 * (number % 2 == 0))
    return number * number


def refuse_seven(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def large_then_die(task: tuple[int, Path]) -> bytes:
    """Task 1 is killed while its result, far larger than a pipe holds, waits to be read.

    It begins when the file is there, so that it is not read while the result of task 0 is awaited.
    """
    number, begin = task
    if number == 1:
        while not begin.exists():
            time.sleep(0.01)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return bytes(50_000_000)
    return b"small"


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_results_come_in_the_order_of_their_tasks(num_workers: int):
    found = list(ordered_map(slow_if_even, range(40), num_workers))
    assert found == [number * number for number in range(40)]


def test_no_tasks_need_no_worker():
    assert list(ordered_map(slow_if_even, [], 2)) == []


def test_exceptions_of_tasks_reach_the_caller():
    results = ordered_map(refuse_seven, range(20), 2)
    with pytest.raises(ValueError, match="seven"):
        list(results)


def test_a_worker_that_dies_at_work_is_an_error():
    with pytest.raises(WorkerDiedError):
        list(ordered_map(die_at_three, range(20), 2))


@pytest.mark.timeout(60)
def test_a_worker_that_dies_while_sending_is_an_error(tmp_path: Path):
    begin = tmp_path / "begin"
    results = ordered_map(large_then_die, [(0, begin), (1, begin)], 2)
    assert next(results) == b"small"
    begin.touch()
    while len(multiprocessing.active_children()) > 1:  # then half a message lies in the pipe
        time.sleep(0.05)
    with pytest.raises(WorkerDiedError):
        next(results)


def test_an_abandoned_iteration_leaves_no_process():
    results = ordered_map(slow_if_even, range(1000), 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]


def test_a_script_needs_no_main_guard(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from rela.data.beton.worker_pool import ordered_map\n"
        "print('once')\n"
        "print(list(ordered_map(Path.exists, [Path('/'), Path('/nowhere')], 2)))\n"
    )
    result = run_python(script)
    assert result.stdout == "once\n[True, False]\n", result.stderr


def test_a_pool_keeps_its_processes_from_one_map_to_the_next():
    with WorkerPool(2) as pool:
        first = set(pool.map(process_id, range(8)))
        assert set(pool.map(process_id, range(8))) <= first and len(first) <= 2
        with pytest.raises(ValueError, match="seven"):
            list(pool.map(refuse_seven, range(20)))
        assert list(pool.map(abs, [-1])) == [1], "it starts again after a failure"


def process_id(_: int) -> int:
    return os.getpid()
