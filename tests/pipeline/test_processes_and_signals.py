"""Signals of batch systems, and processes that end with their parent (rela.pipeline.processes).

Covers: a body is left by an exception that names the signal, and handlers are as before; signals that are
ignored stay so; in other threads nothing is changed; processes are in groups of their own, silent, and dead
when the call that started them fails; a process whose parent has ended is killed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from rela.pipeline.processes import (
    PREEMPTION_SIGNALS,
    AskedToMakeRoom,
    ProcessExit,
    making_room,
    not_ignored,
    run_processes,
)

END_WITH_PARENT = """
import os, sys
from rela.pipeline.processes import end_with_parent
end_with_parent({"own": os.getppid(), "none": None, "ended": os.getpid()}[sys.argv[1]])
print("lives")
"""


def wait_for(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize("number", PREEMPTION_SIGNALS)
def test_a_signal_ends_the_body_and_is_named(number: signal.Signals):
    before = [signal.getsignal(n) for n in PREEMPTION_SIGNALS]
    with pytest.raises(AskedToMakeRoom) as caught, making_room():
        wait_for(number)
    assert str(caught.value) == number.name and not isinstance(caught.value, Exception)
    assert [signal.getsignal(n) for n in PREEMPTION_SIGNALS] == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with making_room():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_sigint_and_others_are_forwarded_unless_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in not_ignored() and signal.SIGTERM in not_ignored()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.SIGHUP in not_ignored()


def test_other_threads_change_no_handler():
    handlers = [signal.getsignal(n) for n in PREEMPTION_SIGNALS]
    found: list[object] = []

    def work() -> None:
        with making_room():
            found.append([signal.getsignal(n) for n in PREEMPTION_SIGNALS])
        found.append(run_processes(["true"], [dict(os.environ)], grace_seconds=1.0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [handlers, [ProcessExit(0, False)]]


def test_each_process_has_its_environment_and_group_and_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    script = 'echo loud; echo "$$ $(ps -o pgid= -p $$)" > "$FILE"'
    files = [str(tmp_path / name) for name in "ab"]
    environments = [{**os.environ, "FILE": file} for file in files]
    assert run_processes(["bash", "-c", script], environments, 1.0) == [ProcessExit(0, False)] * 2
    for file in files:
        process, group = Path(file).read_text().split()
        assert process == group
    assert capfd.readouterr() == ("", "")


def test_nothing_is_left_when_the_call_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        if started:
            raise OSError("no more processes")
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(OSError, match="no more processes"):
        run_processes(["sleep", "60"], [dict(os.environ)] * 2, grace_seconds=60.0)
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("parent", "status", "said"),
    [("own", 0, b"lives\n"), ("none", 0, b"lives\n"), ("ended", -signal.SIGKILL, b"")],
)
def test_a_process_whose_parent_has_ended_is_killed(parent: str, status: int, said: bytes):
    command = [sys.executable, "-c", END_WITH_PARENT, parent]
    found = subprocess.run(command, stdout=subprocess.PIPE)
    assert (found.returncode, found.stdout) == (status, said)


def test_an_end_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ProcessExit(0, False).status = 1  # type: ignore[misc]
