"""Progress bars: a rate and an ETA on a terminal, nothing elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from tqdm import tqdm

_PATIENCE_SECONDS = 1.0


def progress_bar(total: int, description: str, unit: str, initial: int = 0, **more: Any) -> Any:
    """A bar on standard error; silent when that is not a terminal. `more` is for tqdm."""
    return tqdm(
        total=total, desc=description, unit=unit, initial=initial, disable=None, dynamic_ncols=True,
        smoothing=0.05, **more,
    )  # fmt: skip


@contextmanager
def bar_of_bytes(description: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (bytes more, bytes in all), for several threads, that moves a bar.

    What is over within a second shows none.
    """
    bar = progress_bar(
        0, description, "B", unit_scale=True, delay=_PATIENCE_SECONDS, mininterval=0.2, leave=False
    )
    lock = Lock()

    def tell(more: int, in_all: int) -> None:
        with lock:
            bar.total = in_all
            bar.update(more)

    with bar:
        yield tell
