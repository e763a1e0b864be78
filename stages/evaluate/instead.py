"""Why not just use the prior: it beside a model that learned from it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rela.stages.evaluate.measured import Evaluation
from rela.stages.evaluate.speed import Speed


@dataclass(frozen=True)
class Candidate:
    """A model to use. `speed`: or why it is not known; `top1`: accuracies in [0, 1] by protocol."""

    name: str
    arch: str
    speed: Speed | str
    top1: dict[str, float]


@dataclass(frozen=True)
class Instead:
    """A prior beside the best student of one architecture.

    `embed_seconds`: what embedding the training images by the prior took.
    """

    prior: Candidate
    student: Candidate
    embed_seconds: float

    def lines(self) -> list[str]:
        """The question, and a line for each of the two; `rela eval` has the accuracies above them."""
        return [
            f"why not just use {self.prior.name}?",
            f"  {self.prior.name}: {_words(self.prior.speed)}; embedding took {self.embed_seconds:.1f} s",
            f"  {self.student.name} ({self.student.arch}): {_words(self.student.speed)}",
        ]


def instead_of(
    name: str, prior: Evaluation, top1: dict[str, float], students: Sequence[Candidate]
) -> list[Instead]:
    """The evaluated prior beside the best student of every architecture."""
    found = []
    speed = prior.speed or "not measured"
    of_prior = Candidate(name, str(prior.results["identity"].get("arch", name)), speed, top1)
    for arch in dict.fromkeys(student.arch for student in students if student.top1):
        mine = [student for student in students if student.arch == arch and student.top1]
        best = max(mine, key=lambda student: statistics.fmean(student.top1.values()))
        found.append(Instead(of_prior, best, prior.embed_seconds or 0.0))
    return found


def _words(speed: Speed | str) -> str:
    return speed.words() if isinstance(speed, Speed) else f"size and speed are not known ({speed})"
