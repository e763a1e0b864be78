"""What figures do not show by themselves: no better than chance, and probes that contradict each other."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rela.evaluation.protocols import PROTOCOLS, title_of
from rela.stages.evaluate.chance import Chance

_SHOWN_PAIRS = 3


@dataclass(frozen=True)
class Compared:
    """A run, a prior, or the mean of runs that differ in their seed: top-1 accuracies by protocol."""

    name: str
    dataset: str | None
    top1: dict[str, float]
    chance: Chance | None


@dataclass(frozen=True)
class BelowChance:
    """An accuracy in [0, 1] that is no better than chance, which reaches up to `limit`."""

    evaluated: str
    protocol: str
    top1: float
    limit: float
    num_images: int

    def words(self) -> str:
        """One line."""
        return (
            f"{self.evaluated}: {100 * self.top1:.2f} % by {title_of(self.protocol)} is no better than "
            f"chance (up to {100 * self.limit:.2f} % on {self.num_images:,} images)"
        )


@dataclass(frozen=True)
class Disagreement:
    """`better` is ahead of `worse` by one probe and behind by the other; top-1 in [0, 1] of each.

    `is_clear`: neither difference is within the sampling error of the validation images.
    """

    better: str
    worse: str
    ahead_by: str
    behind_by: str
    ahead: tuple[float, float]
    behind: tuple[float, float]
    is_clear: bool

    def words(self) -> str:
        """One line."""
        ahead, behind = (
            f"{100 * first:.2f} against {100 * second:.2f} %"
            for first, second in (self.ahead, self.behind)
        )
        return (
            f"the probes disagree: {self.better} is better than {self.worse} by {title_of(self.ahead_by)} "
            f"({ahead}), worse by {title_of(self.behind_by)} ({behind})"
        )


def below_chance(several: Sequence[Compared]) -> list[BelowChance]:
    """Of every accuracy, those that chance may reach."""
    return [
        BelowChance(one.name, protocol, top1, one.chance.limit, one.chance.num_images)
        for one in several
        if one.chance is not None
        for protocol, top1 in one.top1.items()
        if top1 <= one.chance.limit
    ]


def disagreements(several: Sequence[Compared]) -> list[Disagreement]:
    """Pairs on one data set that two probes of different kinds put in opposite orders."""
    found = []
    for first, second in itertools.combinations(several, 2):
        if first.dataset != second.dataset:
            continue
        shared = [protocol for protocol in first.top1 if protocol in second.top1]
        for one, other in itertools.combinations(shared, 2):
            if type(PROTOCOLS.get(one)) is type(PROTOCOLS.get(other)):
                continue
            gains = [first.top1[p] - second.top1[p] for p in (one, other)]
            if gains[0] * gains[1] < 0:
                found.append(_disagreement(first, second, one, other))
    return found


def _disagreement(first: Compared, second: Compared, one: str, other: str) -> Disagreement:
    better, worse = (first, second) if first.top1[one] > second.top1[one] else (second, first)
    ahead, behind = ((better.top1[p], worse.top1[p]) for p in (one, other))
    is_clear = all(_is_clear(pair, first.chance) for pair in (ahead, behind))
    return Disagreement(better.name, worse.name, one, other, ahead, behind, is_clear)


def _is_clear(pair: tuple[float, float], chance: Chance | None) -> bool:
    """Whether a difference exceeds the sampling error of both accuracies.

    Both are measured on the same images, so that this is cautious.
    """
    if chance is None:
        return True
    error = math.hypot(*map(chance.sampling_error, pair))
    return abs(pair[0] - pair[1]) > error


def in_words(
    below: Sequence[BelowChance], disagreeing: Sequence[Disagreement], others: str = " (see --json)"
) -> list[str]:
    """A line for every accuracy at chance, and for some clear disagreements; where the `others` are.

    A disagreement within the sampling error shows nothing, and is left out.
    """
    clear = [pair for pair in disagreeing if pair.is_clear]
    lines = [one.words() for one in below]
    lines += [pair.words() for pair in clear[:_SHOWN_PAIRS]]
    if more := max(0, len(clear) - _SHOWN_PAIRS):
        lines.append(f"the probes disagree about {more} more pair{'s' * (more > 1)}{others}")
    return lines
