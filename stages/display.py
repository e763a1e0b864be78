"""Tables, progress bars, and mean ± standard deviation."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from rela.errors import one_line


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Align columns two spaces apart: numbers to the right, words to the left, None as a dash."""
    cells = [["–" if value is None else one_line(str(value)) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(header, *cells, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        for i in range(len(header))
    ]

    def line(texts: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, cells)])


def human_bytes(count: int) -> str:
    """1,234,567 → "1.2 MB"."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


_PATIENCE_SECONDS = 1.0


def progress_bar(total: int, description: str, unit: str, initial: int = 0, **more: Any) -> Any:
    """Make a bar on standard error, hidden unless that is a terminal or in a notebook.

    `more` goes to tqdm.
    """
    from tqdm import tqdm  # imported here to keep `rela status` light

    from rela.training.progress import in_notebook

    return tqdm(
        total=total, desc=description, unit=unit, initial=initial,
        disable=False if in_notebook() else None, dynamic_ncols=True, smoothing=0.05, **more,
    )  # fmt: skip


@contextmanager
def bar_of_bytes(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a thread-safe function of (bytes since the last call, total bytes) that moves a bar.

    Jobs shorter than a second show no bar.
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


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for a single value)."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Compute both from at least one value."""
        import statistics

        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), std)

    def words(self, digits: int, scale: float = 1) -> str:
        """Format `scale` times the figure as `93.1 ± 0.4`."""
        spread = "" if self.std is None else f" ± {scale * self.std:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{spread}"

    def percent(self, digits: int = 2) -> str:
        """Format a figure in [0, 1] as `93.12 ± 0.40`."""
        return self.words(digits, 100)


def next_command(*words: str) -> str:
    """The last line of what a command prints: the command to type next."""
    return f"next: `{shlex.join(['rela', *words])}`"
