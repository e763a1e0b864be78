"""Rendezvous (rela.distributed.rendezvous): a run is announced, or a lost process is noticed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from command_line import REPOSITORY

from rela.distributed.ranks import Ranks, free_port
from rela.distributed.rendezvous import Rendezvous
from rela.errors import LostRankError
from rela.pipeline.processes import AskedToMakeRoom, making_room

TIMEOUT_SECONDS = 3.0
FIRST = """
import os, signal, sys, time
from rela.distributed.rendezvous import Rendezvous
from rela.distributed.ranks import Ranks, free_port
ranks = Rendezvous(Ranks(0, 2, 0, 2), 60)
time.sleep(float(sys.argv[2]))
{"announce": lambda: ranks.announce("run-7"),
 "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
 "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP)}[sys.argv[1]]()
time.sleep(60)
"""


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch):
    """Start a first process that does something after some seconds, and connect to it."""
    port = free_port()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    started = []

    def connect(does: str, after_seconds: float) -> Rendezvous:
        command = [sys.executable, "-c", FIRST, does, str(after_seconds)]
        started.append(subprocess.Popen(command, cwd=REPOSITORY))
        ranks = Rendezvous(Ranks(1, 2, 1, 2), 60)
        ranks._patience = ranks._patience * TIMEOUT_SECONDS / ranks._patience.total_seconds()
        return ranks

    yield connect
    for process in started:
        process.kill()
        process.wait()


def test_a_run_is_announced_after_long_preparation(second):
    assert second("announce", 3 * TIMEOUT_SECONDS).wait() == "run-7"


@pytest.mark.parametrize("does", ["kill", "stop"])
def test_a_lost_rank_0_is_noticed(second, does: str):
    ranks = second(does, 0)
    start = time.monotonic()
    with pytest.raises(LostRankError, match="did not connect, or ended before"):
        ranks.wait()
    assert time.monotonic() - start < 10 * TIMEOUT_SECONDS


def test_a_waiting_rank_obeys_the_batch_system(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")  # where no process will ever listen
    start = time.monotonic()
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with making_room(), pytest.raises(AskedToMakeRoom):
        Rendezvous(Ranks(1, 2, 1, 2), 60)
    assert time.monotonic() - start < 10
