"""Momentum networks: copies that follow the trained ones as moving averages (arXiv 1911.05722)."""

import copy
from typing import TypeVar

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """The same weights, and no gradients."""
    return copy.deepcopy(module).requires_grad_(False)


def follow(leader: nn.Module, follower: nn.Module, momentum: float) -> None:
    """follower ← momentum · follower + (1 − momentum) · leader, for all weights at once.

    Buffers (running statistics of norms) stay the follower's own.
    """
    average = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
    average(list(follower.parameters()), list(leader.parameters()), 0)
