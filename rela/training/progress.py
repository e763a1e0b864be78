"""Progress of a training: one line on its terminal, and a small file for `rela status`."""

import json
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from rela.pipeline.files import replace_file, temporary_of

_LINE_SECONDS, _FILE_SECONDS = 0.5, 3.0
_WINDOW_SECONDS = 30.0
_BAR_COLUMNS = 20
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_FEWEST_UNITS = 2  # "90 minutes", not "2 hours"
_MARGIN_COLUMNS = 1  # a full line makes some terminals wrap


@dataclass(frozen=True)
class Snapshot:
    """A training at one moment. `epoch` counts from 0, as in `metrics.jsonl`.

    `loss` and `online_accuracy` are means over the last steps, rates over the last half minute.
    `eta_is_least`: stage 2, with usually slower steps, is still to come.
    """

    stage: int
    epoch: int
    epochs: int
    epoch_share: float
    step: int
    num_steps: int
    loss: float
    rho: float | None
    online_accuracy: float | None
    images_per_second: float | None
    data_wait_share: float | None
    eta_seconds: float | None
    eta_is_least: bool


class Rates:
    """Image rate and data wait over the last half minute, marked after every step."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, float]] = deque()

    def mark(self, now: float, num_images: int, waited_seconds: float) -> None:
        """Take a step; `num_images` and `waited_seconds` are running totals."""
        self._marks.append((now, num_images, waited_seconds))
        while len(self._marks) > 2 and now - self._marks[1][0] > _WINDOW_SECONDS:
            self._marks.popleft()

    def clear(self) -> None:
        """Forget the marks: the following steps have another speed."""
        self._marks.clear()

    @property
    def seconds(self) -> float:
        """Between the first and the last mark."""
        return self._marks[-1][0] - self._marks[0][0] if self._marks else 0.0

    def current(self) -> tuple[float | None, float | None]:
        """Images per second and the fraction of time spent waiting; None before two marks."""
        if len(self._marks) < 2:
            return None, None
        (start, first, waited_before), (end, last, waited) = self._marks[0], self._marks[-1]
        elapsed = max(end - start, 1e-9)
        return (last - first) / elapsed, (waited - waited_before) / elapsed


class LiveProgress:
    """Shows snapshots on a terminal and in a notebook, and writes the last one to the file `path`.

    `stream`: standard error by default, in a notebook too; another one only if it is a terminal.

    A snapshot waits for the GPU, so it is taken only when one is due. `is_first`: whether this is rank 0,
    the only one that shows and writes.
    """

    def __init__(self, path: Path, is_first: bool = True, stream: TextIO | None = None) -> None:
        self.path, self.is_first = path, is_first
        self.stream = sys.stderr if stream is None else stream
        self.is_terminal = is_first and (self.stream.isatty() or (stream is None and in_notebook()))
        self._shown = ""
        self._shown_at = self._written_at = -_WINDOW_SECONDS

    def update(self, now: float, take: Callable[[], Snapshot]) -> None:
        """Call `take` and show or write the snapshot, if either is due; `now` in seconds."""
        show = self.is_terminal and now - self._shown_at >= _LINE_SECONDS
        write = self.is_first and now - self._written_at >= _FILE_SECONDS
        if not (show or write):
            return
        snapshot = take()
        if show:
            self._shown_at = now
            self.show(format_line(snapshot, _columns(self.stream) - _MARGIN_COLUMNS))
        if write:
            self._written_at = now
            write_progress(self.path, snapshot)

    def show(self, text: str) -> None:
        """Replace the shown line by `text`."""
        if self.is_terminal:
            width = max(0, _columns(self.stream) - _MARGIN_COLUMNS)
            text = text[:width]
            # padding instead of an escape sequence avoids flicker; the full width also covers a ^C and
            # the rest of a line from a wider window
            with suppress(OSError):  # the terminal may be gone, and SIGHUP on its way
                self.stream.write(f"\r{text.ljust(width)}" + "\b" * (width - len(text)))
                self.stream.flush()
            self._shown = text

    def say(self, line: str, say: Callable[[str], None]) -> None:
        """Print a permanent line above the shown one."""
        shown = self._shown
        self.clear()
        say(line)
        if shown:
            self.show(shown)

    def clear(self) -> None:
        """Remove the shown line."""
        if self._shown:
            self.show("")


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process; its output is not a terminal, but is shown live."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def format_line(now: Snapshot, columns: int) -> str:
    """The snapshot in one line of at most `columns` characters, shortened as needed."""
    percent = _or_dash(now.online_accuracy, lambda share: f"{100 * share:.1f}")
    wait = _or_dash(now.data_wait_share, lambda share: f"{100 * share:.0f}")
    rate = _or_dash(now.images_per_second, lambda rate: f"{rate:,.0f}")
    eta = _or_dash(now.eta_seconds, lambda s: (">" if now.eta_is_least else "") + clock(s))
    is_regressing = now.stage == 1 and now.rho is not None
    epoch = f"{now.epoch + 1}/{now.epochs}"
    done = now.step / max(1, now.num_steps)
    full = {
        "bar": f"{_bar(done)} {100 * done:.0f} %",
        "stage": f"stage {now.stage}",
        "epoch": f"epoch {epoch} {100 * now.epoch_share:3.0f} %",
        "loss": f"loss {now.loss:.4f}",
        "rho": f"rho {now.rho:.4f}" if is_regressing else "",
        "accuracy": "" if now.online_accuracy is None else f"accuracy {percent} %",
        "rate": f"{rate} img/s",
        "wait": f"data wait {wait} %",
        "eta": f"ETA {eta}",
    }
    short = {
        **full,
        "bar": "",
        "epoch": epoch,
        "loss": f"loss {now.loss:.3f}",
        "rho": f"rho {now.rho:.3f}" if is_regressing else "",
        "accuracy": "" if now.online_accuracy is None else f"acc {percent}%",
        "wait": f"wait {wait}%",
    }
    lines = [
        "  ".join(filter(None, shown.values())) for shown in (full, {**full, "bar": ""}, short)
    ]
    for dropped in ("", "wait", "accuracy", "rho", "rate", "eta"):
        short[dropped] = ""
        lines.append(" ".join(filter(None, short.values())))
    return next((line for line in lines if len(line) <= columns), lines[-1][: max(columns, 0)])


def _bar(share: float) -> str:
    filled = min(_BAR_COLUMNS, int(_BAR_COLUMNS * share))
    return f"[{'#' * filled}{'.' * (_BAR_COLUMNS - filled)}]"


def clock(seconds: float) -> str:
    """3,723 → "1:02:03"; under an hour "2:03"; from two days on "2 d 1 h"."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def estimate(now: Snapshot) -> str:
    """How long the rest takes, in words; for logs, where there is no live line."""
    assert now.eta_seconds is not None
    unit, seconds = next(
        u for u in _UNITS if now.eta_seconds >= _FEWEST_UNITS * u[1] or u == _UNITS[-1]
    )
    count = round(now.eta_seconds / seconds)
    least = "; more if steps of stage 2 are slower" if now.eta_is_least else ""
    return f"about {count} {unit}{'s' * (count != 1)} to go at the speed of the first steps{least}"


def write_progress(path: Path, snapshot: Snapshot) -> None:
    """Replace the file atomically; if that fails, the old one stays and training continues."""
    record = {
        **asdict(snapshot), "host": platform.node(), "pid": os.getpid(), "updated": time.time(),
    }  # fmt: skip
    with suppress(OSError):
        replace_file(path, json.dumps(record).encode())


def remove_progress(path: Path) -> None:
    """Remove the file of a training that has ended."""
    for each in (path, temporary_of(path)):
        with suppress(OSError):
            each.unlink(missing_ok=True)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _or_dash(value: float | None, words: Callable[[float], str]) -> str:
    return "–" if value is None else words(value)
