"""Wall and CPU seconds of a piece of work.

On a shared machine wall seconds measure the neighbours, too; CPU seconds hardly do.
"""

import os
import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, and of all cores together."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @classmethod
    def now(cls) -> Self:
        """A reading of both clocks; only differences mean something.

        CPU seconds are those of all threads of this process and of its children that have ended.
        """
        return cls(time.perf_counter(), sum(os.times()[:4]))

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def __truediv__(self, number: int) -> "Spent":
        return Spent(self.seconds / number, self.cpu_seconds / number)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds)
