"""Optimizers and learning-rate schedules by name: AdamW, SGD and LARS, constant or cosine."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import nn

OPTIMIZER_NAMES = ("adamw", "sgd", "lars")
SCHEDULE_NAMES = ("constant", "cosine")
_SGD_MOMENTUM = 0.9


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer and learning-rate schedule.

    - `lr`: peak rate for batches of `lr_batch_size` images (None: of any size); for other batches it grows
      with this power of the batch: `lr_power`;
    - `schedule`: "constant", or "cosine" to a thousandth of the peak over the whole training; both start
      with a linear warm-up over `warmup_epochs`;
    - `decay_all`: apply weight decay to biases and norm layers too, PyTorch's default;
    - `clip_norm`: largest global gradient norm;
    - `trust`, `clip_trust`: how far LARS moves a weight, see there.
    """

    optimizer: Literal["adamw", "sgd", "lars"]
    lr: float
    weight_decay: float
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: int = 0
    lr_batch_size: int | None = None
    lr_power: float = 1.0
    decay_all: bool = False
    clip_norm: float | None = None
    trust: float = 0.001
    clip_trust: bool = False

    def for_batch(self, batch_size: int) -> "OptimizerSettings":
        """The same settings with the rate for batches of `batch_size`."""
        if self.lr_batch_size is None:
            return self
        lr = self.lr * (batch_size / self.lr_batch_size) ** self.lr_power
        return replace(self, lr=lr, lr_batch_size=None)


def build_optimizer(
    settings: OptimizerSettings,
    parameters: "Iterable[nn.Parameter]",
    monitoring: "Iterable[nn.Parameter]" = (),
) -> "torch.optim.Optimizer":
    """The optimizer of all trainable `parameters`; biases and norm layers have their own group.

    So have those of `parameters` that are in `monitoring`, the online classifier's: without weight decay
    and LARS's adaptation, which would shrink its steps a thousandfold. Groups whose weight decay may be
    scheduled have `decays` set.
    """
    import torch

    from rela.methods.parts.lars import LARS

    watching = {id(p) for p in monitoring}
    trained = [p for p in parameters if p.requires_grad]
    watchers = [p for p in trained if id(p) in watching]
    trained = [p for p in trained if id(p) not in watching]
    decaying = [p for p in trained if p.ndim > 1 or settings.decay_all]
    others = [p for p in trained if not (p.ndim > 1 or settings.decay_all)]
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": settings.weight_decay, "decays": True}
    ]
    groups += [
        {"params": plain, "weight_decay": 0.0, "decays": False}
        for plain in (others, watchers)
        if plain
    ]
    assert settings.lr_batch_size is None, "the rate is not scaled yet; see for_batch"
    lr = settings.lr
    if settings.optimizer == "adamw":
        # a fused AdamW unscales 16-bit gradients itself, which is too late for clipping
        return torch.optim.AdamW(groups, lr=lr, fused=settings.clip_norm is None)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=_SGD_MOMENTUM)
    for group in groups:
        group["adapts"] = group["decays"]
    return LARS(groups, lr, _SGD_MOMENTUM, settings.trust, settings.clip_trust)


def build_schedule(
    settings: OptimizerSettings,
    optimizer: "torch.optim.Optimizer",
    num_steps: int,
    steps_per_epoch: int,
) -> "torch.optim.lr_scheduler.LambdaLR | None":
    """The schedule, stepped after every optimizer step; None for a constant rate without warm-up."""
    warmup = min(settings.warmup_epochs * steps_per_epoch, num_steps)
    if settings.schedule == "constant" and warmup == 0:
        return None
    from lightly.utils.scheduler import CosineWarmupScheduler

    end_value = 1.0 if settings.schedule == "constant" else 0.001
    schedule: Any = CosineWarmupScheduler(optimizer, warmup, num_steps, end_value=end_value)
    return schedule  # type: ignore[no-any-return]
