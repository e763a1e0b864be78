"""Processes: start them together, end them together, and stop when a batch system asks."""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Ending:
    """How a process ended: its exit status, negative for a signal; whether it was killed from here."""

    status: int
    was_stopped: bool


def run_together(
    command: Sequence[str], environments: Sequence[Mapping[str, str]], grace_seconds: float
) -> list[Ending]:
    """Run `command` in every one of `environments` at once; how they ended, once all have.

    When one has failed, the others have `grace_seconds` to notice by themselves; then they are
    killed, and so they are if this call ends by an exception. SIGTERM, SIGUSR1 and SIGINT are passed
    on; after SIGINT, KeyboardInterrupt is raised once all have ended. Their standard output is
    closed, standard error is this process's own.
    """
    processes: list[subprocess.Popen[bytes]] = []
    stopped: set[int] = set()
    with _forwarding(processes) as received:
        try:
            for environment in environments:
                processes.append(
                    # in a group of their own: Ctrl-C reaches them once, from here
                    subprocess.Popen(
                        command, env=environment, stdout=subprocess.DEVNULL, process_group=0
                    )
                )
                for number in received:  # before there was this one to pass it on to
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
    return [Ending(process.returncode, process.pid in stopped) for process in processes]


def _kill(processes: "list[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _forwarding(processes: "list[subprocess.Popen[bytes]]") -> Iterator[set[int]]:
    """Pass signals on to `processes`; yields the set of those that came."""
    received: set[int] = set()

    def forward(number: int, frame: object) -> None:
        received.add(number)
        for process in processes:
            process.send_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_NUMBERS = (signal.SIGTERM, signal.SIGUSR1)


class AskedToMakeRoom(BaseException):
    """Like KeyboardInterrupt, nobody's error; the message is the signal's name."""


@contextlib.contextmanager
def making_room() -> Iterator[None]:
    """Inside, these signals raise AskedToMakeRoom; a training, which saves first, listens by itself."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _NUMBERS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: Any) -> None:
    raise AskedToMakeRoom(signal.Signals(number).name)


_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int | None) -> None:
    """From here on, SIGKILL when the parent ends; at once if it is `parent` no more. Linux alone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)  # it ended before
