"""Measuring in turn: every round runs all sides, so that a noisy machine disturbs them alike."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """Rates (more is better) of ours and of others, one value per round.

    `rates`: side → rates in `unit`; the first side is ours. `targets`: other side → the ratio of ours
    to it that we want at least.
    """

    title: str
    unit: str
    rates: dict[str, list[float]]
    targets: dict[str, float] = field(default_factory=dict)

    @property
    def ours(self) -> list[float]:
        """Our rates."""
        return next(iter(self.rates.values()))

    def of(self, title: str, sides: Sequence[str], targets: dict[str, float]) -> "Comparison":
        """Some of the sides, the first as ours."""
        return Comparison(title, self.unit, {side: self.rates[side] for side in sides}, targets)

    def ratios(self) -> dict[str, list[float]]:
        """Ours over each other side, round by round."""
        others = list(self.rates.items())[1:]
        return {
            other: [mine / theirs for mine, theirs in zip(self.ours, rates, strict=True)]
            for other, rates in others
        }

    def lines(self) -> list[str]:
        """For people: median (smallest to largest)."""
        found = [self.title]
        for side, rates in self.rates.items():
            found.append(f"  {side:<28} {spread(rates)} {self.unit}")
        for other, ratios in self.ratios().items():
            target = self.targets.get(other)
            wanted = "" if target is None else f"   wanted: at least {target:g}"
            found.append(f"  ratio to {other:<19} {spread(ratios)}{wanted}")
        return found

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "ratios": self.ratios()}


@dataclass(frozen=True)
class Figure:
    """A quantity that should stay below a limit (seconds, shares, bytes); one value per round."""

    title: str
    unit: str
    values: list[float]
    limit: float | None = None

    def lines(self) -> list[str]:
        """For people: median (smallest to largest)."""
        wanted = "" if self.limit is None else f"   wanted: at most {self.limit:g}"
        return [self.title, f"  {spread(self.values)} {self.unit}{wanted}"]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def compare(
    title: str,
    unit: str,
    sides: dict[str, Callable[[], float]],
    rounds: int,
    targets: dict[str, float] | None = None,
) -> Comparison:
    """Run every side once unmeasured (compiling, page cache), then `rounds` times in turn.

    A side returns its rate. Odd rounds go through the sides backwards: none is always first.
    """
    for run in sides.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            rates[name].append(sides[name]())
    return Comparison(title, unit, rates, targets or {})


def rate(count: int, work: Callable[[], object], least_seconds: float = 0.0) -> float:
    """How many of `count` a second `work` does; it is repeated until it has lasted `least_seconds`."""
    start = time.perf_counter()
    for repeats in itertools.count(1):
        work()
        if (seconds := time.perf_counter() - start) >= least_seconds:
            return repeats * count / seconds
    raise AssertionError


def spread(values: list[float]) -> str:
    """Median (smallest to largest), to three digits."""
    shown = [f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in
             (statistics.median(values), min(values), max(values))]  # fmt: skip
    return f"{shown[0]} ({shown[1]} to {shown[2]})"
