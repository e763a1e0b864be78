"""Processes: start several together, end them together, and stop when a batch system asks."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # not needed by `rela --help`
    import subprocess

# sent by batch systems before they kill, and by a terminal that is closed
PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
STOPPING_SIGNALS = (*PREEMPTION_SIGNALS, signal.SIGINT)
_POLL_SECONDS = 0.1


def not_ignored(numbers: Sequence[signal.Signals] = PREEMPTION_SIGNALS) -> list[signal.Signals]:
    """Those that this process does not ignore, as it does SIGHUP under nohup."""
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


@dataclass(frozen=True)
class ProcessExit:
    """How a process ended: its exit status, negative for a signal; `was_killed`: by `run_processes`."""

    status: int
    was_killed: bool


def run_processes(
    command: Sequence[str], environments: Sequence[Mapping[str, str]], grace_seconds: float
) -> list[ProcessExit]:
    """Run `command` once per environment, concurrently; return their exits in the same order.

    When one fails, the others have `grace_seconds` to end; then they are killed. They are also killed
    if this call raises. SIGTERM, SIGUSR1, SIGHUP and SIGINT are forwarded; after SIGINT, KeyboardInterrupt is
    raised once all have ended. Standard output is discarded, standard error is shared with this process.
    """
    import subprocess

    processes: list[subprocess.Popen[bytes]] = []
    stopped: set[int] = set()
    with _forwarding(processes) as received:
        try:
            for environment in environments:
                processes.append(
                    # in its own process group: Ctrl-C reaches it once, forwarded from here
                    subprocess.Popen(
                        command, env=environment, stdout=subprocess.DEVNULL, process_group=0
                    )
                )
                for number in received:  # received before this process was started
                    processes[-1].send_signal(number)
            deadline = float("inf")
            while any(process.poll() is None for process in processes):
                if any(process.poll() for process in processes):
                    deadline = min(deadline, time.monotonic() + grace_seconds)
                if time.monotonic() > deadline:
                    stopped |= {p.pid for p in processes if p.poll() is None}
                    _kill(processes)
                time.sleep(_POLL_SECONDS)
        finally:
            _kill(processes)
    if signal.SIGINT in received:
        raise KeyboardInterrupt
    return [ProcessExit(process.returncode, process.pid in stopped) for process in processes]


def _kill(processes: "list[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _forwarding(processes: "list[subprocess.Popen[bytes]]") -> Iterator[set[int]]:
    """Forward signals to `processes`; yields the set of signals received so far."""
    received: set[int] = set()

    def forward(number: int, frame: object) -> None:
        received.add(number)
        for process in processes:
            process.send_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {
            number: signal.signal(number, forward) for number in not_ignored(STOPPING_SIGNALS)
        }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class AskedToMakeRoom(BaseException):
    """A batch system asked this job to stop; no error, like KeyboardInterrupt. `str` names the signal."""


@contextlib.contextmanager
def making_room() -> Iterator[None]:
    """Raise AskedToMakeRoom on PREEMPTION_SIGNALS in the body; a training installs its own handlers."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, _raise) for number in not_ignored()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: Any) -> None:
    raise AskedToMakeRoom(signal.Signals(number).name)


_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int | None) -> None:
    """Have the kernel kill this process when its parent ends, or now if `parent` has ended. Linux only."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)  # the parent ended before prctl
