"""The cost ledger: seconds of every phase, because cost is what the method is about."""

import contextlib
import time
from collections.abc import Iterator


class Ledger:
    """Wall-clock seconds by phase name; phases add up when they are entered again."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(seconds or {})

    def add(self, phase: str, seconds: float) -> None:
        """Put `seconds` on the account of `phase`."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def total(self) -> float:
        """Seconds over all phases."""
        return sum(self.seconds.values())
