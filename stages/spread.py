"""A figure over several seeds: mean and sample standard deviation."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None of a single value)."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), std)

    def words(self, digits: int, scale: float = 1) -> str:
        """`93.1 ± 0.4`, of `scale` times the figure."""
        spread = "" if self.std is None else f" ± {scale * self.std:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{spread}"

    def percent(self, digits: int = 2) -> str:
        """`93.12 ± 0.40`, of a figure in [0, 1]."""
        return self.words(digits, 100)
