"""What every algorithm is: a module around a backbone, with its loss, views and hyperparameters."""

import copy
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rela.data.views import View
from rela.methods.optimizers import OptimizerSettings

# During stage 1 every momentum network follows its online one by this share per step (ReLA).
STAGE1_MOMENTUM = 0.99
REFERENCE_OPTIMIZER = OptimizerSettings(
    "adamw", lr=1e-3, weight_decay=0.01, schedule="constant", decay_all=True
)


@dataclass(frozen=True)
class MethodOptions:
    """What a method is built for, and what of it was chosen.

    - `hyperparameters`: "reference" (ReLA's code) or "paper" (the algorithm's own publication);
    - `ema`: course of the momentum, "constant" or "cosine"; None is what `hyperparameters` say;
    - `local_crops`: number of small views; None is what `hyperparameters` say;
    - `min_scale`: smallest share of the area that a full-sized view shows; None is the method's;
    - `num_images`: images of one epoch; `num_classes`: 0 without labels.
    """

    feature_dim: int
    image_size: int
    num_images: int = 0
    num_classes: int = 0
    hyperparameters: Literal["reference", "paper"] = "paper"
    ema: Literal["constant", "cosine"] | None = None
    local_crops: int | None = None
    min_scale: float | None = None


@dataclass(frozen=True)
class Progress:
    """Where stage 2 stands, in optimizer steps. It begins at the hand-over, so schedules do too."""

    step: int
    num_steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        """Epochs of stage 2 that are over."""
        return self.step // max(1, self.steps_per_epoch)


class Method(nn.Module):
    """Base of all algorithms: `forward` and `views` are theirs, the rest has defaults.

    `optimizer` is the publication's; under the reference's hyperparameters every method has ReLA's.
    """

    backbone: nn.Module
    optimizer: OptimizerSettings = REFERENCE_OPTIMIZER
    default_hyperparameters: Literal["reference", "paper"] = "paper"
    needs_labels = False
    has_momentum = False
    paper_ema: Literal["constant", "cosine"] = "cosine"
    has_local_crops = False

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__()
        self.backbone = backbone
        self.options = options

    @property
    def ema(self) -> Literal["constant", "cosine"]:
        """The course of the momentum: constant in the reference, the publication's, or as chosen."""
        paper = self.options.hyperparameters == "paper"
        return self.options.ema or (self.paper_ema if paper else "constant")

    def views(self) -> tuple[View, ...]:
        """The random views of one image; the first ones are full-sized."""
        raise NotImplementedError

    def stage2_views(self) -> tuple[View, ...]:
        """`views`, with the crops that were asked for: small ones miss objects that are small."""
        size, smallest = self.options.image_size, self.options.min_scale
        if smallest is None:
            return self.views()
        return tuple(
            replace(view, scale=(smallest, max(smallest, view.scale[1])))
            if view.size == size
            else view
            for view in self.views()
        )

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Views [B, 3, S, S] → (loss, features [B, F] of the full-sized views).

        `labels` int64 [B], −1 without a class.
        """
        raise NotImplementedError

    def before_step(self, progress: Progress) -> None:
        """In stage 2, with gradients computed and the optimizer's step still to come."""

    def update_momentum(self, progress: Progress | None) -> None:
        """After every optimizer step of both stages; `progress` is None in stage 1."""

    def weight_decay(self, base: float, progress: Progress) -> float:
        """The optimizer's weight decay for the coming step of stage 2."""
        return base


def momentum_at(progress: Progress | None, start: float, course: str) -> float:
    """EMA coefficient: STAGE1_MOMENTUM in stage 1; then `start`, constant or a half cosine up to 1."""
    if progress is None:
        return STAGE1_MOMENTUM
    if course == "constant":
        return start
    return float(cosine_schedule(progress.step, progress.num_steps, start, 1.0))


def head_width(published: int, feature_dim: int) -> int:
    """Units of a projection head: as published for ResNet-50, at most four times the features' F.

    Heads of 8192 units would have twelve times the weights of a ResNet-18.
    """
    return min(published, 4 * feature_dim)


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
