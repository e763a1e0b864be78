"""Processes that wait for the first one before they train: a name passed on, or a process found lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rela.distributed.ranks import Ranks, free_port
from rela.distributed.rendezvous import Meeting
from rela.errors import LostRankError
from rela.pipeline.processes import AskedToMakeRoom, making_room

TIMEOUT_SECONDS = 3.0
FIRST = """
import os, signal, sys, time
from rela.distributed.rendezvous import Meeting
from rela.distributed.ranks import Ranks, free_port
meeting = Meeting(Ranks(0, 2, 0, 2), 60)
time.sleep(float(sys.argv[2]))
{"tell": lambda: meeting.tell("run-7"),
 "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
 "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP)}[sys.argv[1]]()
time.sleep(60)
"""


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch):
    """Start a first process that does something after some seconds, and meet it."""
    port = free_port()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    started = []

    def meet(does: str, after_seconds: float) -> Meeting:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", FIRST, does, str(after_seconds)],
                cwd=Path(__file__).parents[3],
            )
        )
        meeting = Meeting(Ranks(1, 2, 1, 2), 60)
        meeting._patience = meeting._patience * TIMEOUT_SECONDS / meeting._patience.total_seconds()
        return meeting

    yield meet
    for process in started:
        process.kill()
        process.wait()


def test_a_word_is_heard_however_long_the_first_process_prepares(second):
    assert second("tell", 3 * TIMEOUT_SECONDS).hear() == "run-7"


@pytest.mark.parametrize("does", ["kill", "stop"])
def test_a_first_process_that_is_gone_is_noticed(second, does: str):
    meeting = second(does, 0)
    start = time.monotonic()
    with pytest.raises(LostRankError, match="did not come or ended before it began"):
        meeting.hear()
    assert time.monotonic() - start < 10 * TIMEOUT_SECONDS


def test_a_process_that_waits_for_the_others_hears_the_batch_system(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")  # where nobody will ever come
    start = time.monotonic()
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with making_room(), pytest.raises(AskedToMakeRoom):
        Meeting(Ranks(1, 2, 1, 2), 60)
    assert time.monotonic() - start < 10
