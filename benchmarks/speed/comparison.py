"""Measuring in turn: every round runs all sides, so that a noisy machine disturbs them alike."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
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

    def ratios(self, other: str) -> list[float]:
        """Ours over the other's, round by round."""
        ours = next(iter(self.rates.values()))
        return [mine / theirs for mine, theirs in zip(ours, self.rates[other], strict=True)]

    def lines(self) -> list[str]:
        """For people: median (smallest to largest)."""
        found = [self.title]
        for side, rates in self.rates.items():
            found.append(f"  {side:<28} {spread(rates)} {self.unit}")
        for other in list(self.rates)[1:]:
            target = self.targets.get(other)
            wanted = "" if target is None else f"   wanted: at least {target:g}"
            found.append(f"  ratio to {other:<19} {spread(self.ratios(other))}{wanted}")
        return found

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        ratios = {other: self.ratios(other) for other in list(self.rates)[1:]}
        return {
            "title": self.title, "unit": self.unit, "rates": self.rates, "ratios": ratios,
            "targets": self.targets,
        }  # fmt: skip


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
        return {
            "title": self.title, "unit": self.unit, "values": self.values, "limit": self.limit,
        }  # fmt: skip


def compare(
    title: str,
    unit: str,
    sides: dict[str, Callable[[], float]],
    rounds: int,
    targets: dict[str, float] | None = None,
) -> Comparison:
    """Run every side once unmeasured (compiling, page cache), then `rounds` times in turn.

    A side returns its rate. Odd rounds go through the sides backwards: nobody is always first.
    """
    for run in sides.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            rates[name].append(sides[name]())
    return Comparison(title, unit, rates, targets or {})


def spread(values: list[float]) -> str:
    """Median (smallest to largest), to three digits."""
    shown = [f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in
             (statistics.median(values), min(values), max(values))]  # fmt: skip
    return f"{shown[0]} ({shown[1]} to {shown[2]})"
