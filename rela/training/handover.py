"""When to stop regressing targets and start the algorithm itself (ReLA-F, arXiv 2405.14669)."""

import math
from typing import Any, Protocol

THRESHOLD = 0.995


class HandOver(Protocol):
    """Decides after every optimizer step whether stage 2 begins; its state is in the checkpoint."""

    @property
    def rho(self) -> float:
        """Progress towards the hand-over, in [0, 1]."""
        ...

    def update(self, loss: float) -> bool:
        """Take the stage-1 loss of a step (mean over ranks and micro-batches); True: hand over now."""
        ...

    def steps_left(self, loss: float) -> int:
        """Steps until the hand-over if all have this loss."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        ...


class AdaptiveHandOver:
    """Stage 2 begins when a fast average of the loss has caught up with a slow one.

    From slow = 2, fast = 1, at every step: ρ ← exp(−max(slow − fast, 0)),
    fast ← 0.999 fast + 0.001 loss, slow ← 0.99 slow + 0.01 fast; hand over at ρ ≥ 0.995.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self.slow, self.fast, self.rho = 2.0, 1.0, 0.0

    def update(self, loss: float) -> bool:
        """One step of the rule; raises ValueError for a loss that is not a number."""
        if not math.isfinite(loss):
            raise ValueError(f"stage-1 loss is {loss}")
        self.rho = math.exp(-max(self.slow - self.fast, 0.0))
        self.fast = 0.999 * self.fast + 0.001 * loss
        self.slow = 0.99 * self.slow + 0.01 * self.fast
        return self.rho >= self.threshold

    def steps_left(self, loss: float) -> int:
        """Finite: both averages converge to a constant loss. A falling loss takes longer."""
        rule, steps = AdaptiveHandOver(self.threshold), 1
        rule.load_state_dict(self.state_dict())
        while not rule.update(loss):
            steps += 1
        return steps

    def state_dict(self) -> dict[str, Any]:
        """The two averages and ρ."""
        return {"slow": self.slow, "fast": self.fast, "rho": self.rho}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.slow, self.fast, self.rho = state["slow"], state["fast"], state["rho"]


class FixedHandOver:
    """Stage 2 begins after `num_steps` optimizer steps; ρ is the fraction done."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.steps_done = 0

    @property
    def rho(self) -> float:
        """Progress towards the hand-over, in [0, 1]."""
        return min(1.0, self.steps_done / max(1, self.num_steps))

    def update(self, loss: float) -> bool:
        """Count one step; raises ValueError for a loss that is not a number."""
        if not math.isfinite(loss):
            raise ValueError(f"stage-1 loss is {loss}")
        self.steps_done += 1
        return self.steps_done >= self.num_steps

    def steps_left(self, loss: float) -> int:
        """Independent of the loss."""
        return max(0, self.num_steps - self.steps_done)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps done."""
        return {"steps_done": self.steps_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.steps_done = state["steps_done"]
