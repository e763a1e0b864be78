"""The pool behind conversion: order, errors, and workers that die at the worst moment."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rela.data.beton.worker_pool import WorkerDiedError, ordered_map


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


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_results_come_in_the_order_of_their_tasks(num_workers: int) -> None:
    found = list(ordered_map(slow_if_even, range(40), num_workers))
    assert found == [number * number for number in range(40)]
    assert multiprocessing.active_children() == []


def test_no_task_needs_no_worker() -> None:
    assert list(ordered_map(slow_if_even, [], 2)) == []


def test_what_a_task_raises_is_raised_here() -> None:
    results = ordered_map(refuse_seven, range(20), 2)
    with pytest.raises(ValueError, match="seven"):
        list(results)
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_at_work_is_an_error() -> None:
    with pytest.raises(WorkerDiedError):
        list(ordered_map(die_at_three, range(20), 2))
    assert multiprocessing.active_children() == []


@pytest.mark.timeout(60)
def test_a_worker_that_dies_in_the_middle_of_its_result_is_no_hang(tmp_path: Path) -> None:
    begin = tmp_path / "begin"
    results = ordered_map(large_then_die, [(0, begin), (1, begin)], 2)
    assert next(results) == b"small"
    begin.touch()
    while len(multiprocessing.active_children()) > 1:  # then half a message lies in the pipe
        time.sleep(0.05)
    with pytest.raises(WorkerDiedError):
        next(results)


def test_an_abandoned_iteration_leaves_no_process() -> None:
    results = ordered_map(slow_if_even, range(1000), 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_a_script_needs_no_guard_around_what_it_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from rela.data.beton.worker_pool import ordered_map\n"
        "print('once')\n"
        "print(list(ordered_map(Path.exists, [Path('/'), Path('/nowhere')], 2)))\n"
    )
    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert result.stdout == "once\n[True, False]\n", result.stderr
