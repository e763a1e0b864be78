"""One job at a time in a directory (pipeline.lock).

Covers: a second job is told who holds it; the lock ends with its body and with a killed holder; on file
systems without locks a lease takes its place; other errors are told.
"""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import BusyError
from pipeline.lock import NO_LOCKS, exclusive

HOLD = """
import sys, time
from pathlib import Path
from pipeline.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def flock_fails(monkeypatch: pytest.MonkeyPatch):
    def fail_with(number: int) -> None:
        def fail(file: object, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", fail)

    return fail_with


def test_another_process_is_named_until_it_is_killed(tmp_path: Path):
    lock = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"in use by process {holder.pid}"), exclusive(lock):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with exclusive(lock):
            assert lock.read_text() == f"process {os.getpid()}"


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_a_lease_does(tmp_path: Path, flock_fails, number: int):
    flock_fails(number)
    for _ in range(2):
        with (
            exclusive(tmp_path / ".lock"),
            pytest.raises(BusyError, match=f"process {os.getpid()}"),
            exclusive(tmp_path / ".lock"),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_other_errors_come_through(tmp_path: Path, flock_fails):
    flock_fails(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), exclusive(tmp_path / ".lock"):
        pass
