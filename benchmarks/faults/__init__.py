"""What is promised when things break, tried by breaking them. One file per kind of fault, listed here.

A campaign NAME is `NAME(trials, scratch)`, an iterator of tallies, in NAME.py or where IN_FILE says;
`trials` of 0 stands for its own number. Those of BY_STAGE also take the stages to try.
"""

import os
from dataclasses import asdict, dataclass, field
from typing import Any

# before numpy and torch are there: threads of forked jobs would only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

CAMPAIGNS = {
    "kill": "kill -9 at random instants of every stage, then run it again",
    "resume": "training killed at each of 100 steps",
    "world_size": "training stopped and resumed on 2, 1, 2 processes",
    "storage": "full disks and I/O errors at any write",
    "concurrency": "four jobs on one key, one of them killed",
    "integrity": "one bit flipped anywhere in what is kept",
    "images": "damaged images and odd folders",
    "files": "hostile weights, HDF5 files, manifests, configurations, recipes",
    "hangs": "workers and ranks that die, stop or lose their network",
}
IN_FILE = {"resume": "kill", "concurrency": "kill"}

BY_STAGE = ("kill", "storage", "concurrency")


@dataclass
class Tally:
    """Trials of one promise: how many held, and what happened in those that did not."""

    what: str
    held: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All trials."""
        return self.held + len(self.broken)

    def count(self, problem: str = "") -> None:
        """One more trial; `problem` says what went wrong, if anything did."""
        if problem:
            self.broken.append(problem)
        else:
            self.held += 1

    def lines(self) -> list[str]:
        """The count, and every problem."""
        return [f"{self.held}/{self.total}  {self.what}", *(f"    {p}" for p in self.broken)]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "total": self.total}
