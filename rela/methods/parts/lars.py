"""LARS: Large Batch Training of Convolutional Networks (You et al., 2017, arXiv 1708.03888)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_EPS = 1e-8


class LARS(torch.optim.Optimizer):
    """SGD with momentum, where every tensor of a group with `adapts` has a rate of its own.

    For a weight w with gradient g, decay λ and rate γ, the momentum takes r (g + λw) with
    r = η ‖w‖ / (‖g‖ + λ‖w‖), or r = min(r / γ, 1) if `clip`, so that no rate exceeds γ. A weight of zeros
    takes g itself; one without a gradient stays. Nothing waits for the device.
    """

    def __init__(
        self,
        params: "Iterable[Tensor] | Iterable[dict[str, Any]]",
        lr: float,
        momentum: float = 0.9,
        trust: float = 0.001,
        clip: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "trust": trust,
            "clip": clip,
            "weight_decay": 0.0,
            "adapts": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure` computes the loss and the gradients anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            updates = [p.grad for p in weights]
            if not weights:
                continue
            if group["adapts"]:
                updates = _adapted(weights, updates, group)
            elif group["weight_decay"]:
                updates = list(torch._foreach_add(updates, weights, alpha=group["weight_decay"]))
            for weight, update in zip(weights, updates, strict=True):
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                state["momentum_buffer"].mul_(group["momentum"]).add_(update)
            buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
            torch._foreach_add_(weights, buffers, alpha=-group["lr"])
        return loss


def _adapted(weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """r (g + λw) for each weight."""
    lengths = torch.stack(torch._foreach_norm(weights))
    slopes = torch.stack(torch._foreach_norm(gradients))
    decay = group["weight_decay"]
    rates = group["trust"] * lengths / (slopes + decay * lengths + _EPS)
    if group["clip"]:
        rates = (rates / group["lr"]).clamp(max=1.0)
    rates = torch.where((lengths > 0) & (slopes > 0), rates, 1.0)
    decays = torch.where(slopes > 0, decay * rates, 0.0)
    return [
        rate * gradient + share * weight
        for rate, gradient, share, weight in zip(
            rates.unbind(), gradients, decays.unbind(), weights, strict=True
        )
    ]
