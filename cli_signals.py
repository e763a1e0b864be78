"""SIGTERM and SIGUSR1, by which batch systems ask for room: the command ends, and can be given again."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

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
