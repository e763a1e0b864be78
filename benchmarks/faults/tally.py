"""How often a promise held."""

from dataclasses import dataclass, field
from typing import Any


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
        return {"what": self.what, "held": self.held, "total": self.total, "broken": self.broken}
