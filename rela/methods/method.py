"""Base class of all algorithms: a module around a backbone, with loss, views and hyperparameters."""

import copy
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rela.data.views import View, is_small, least_scale
from rela.methods.optimizers import OptimizerSettings
from rela.methods.recipes import (
    LONGEST,
    REFERENCE_OPTIMIZER,
    RELA_OPTIMIZER,
    Hyperparameters,
    Recipe,
    Recipes,
)

# EMA coefficient of every momentum network during stage 1 (ReLA).
STAGE1_MOMENTUM = 0.99


@dataclass(frozen=True)
class MethodOptions:
    """The data and backbone that a method is built for, and the user's choices.

    - `hyperparameters`: see rela.methods.recipes;
    - `ema`: schedule of the momentum, "constant" or "cosine"; None: as in `hyperparameters`;
    - `local_crops`: number of small views; None: as in `hyperparameters`;
    - `min_scale`: smallest share of the area that a full-sized view covers; None: the method's own;
    - `num_images`: images per epoch; `num_classes`: 0 without labels;
    - `epochs` of both stages, which decide the publication's recipe.
    """

    feature_dim: int
    image_size: int
    num_images: int = 0
    num_classes: int = 0
    hyperparameters: Hyperparameters = "rela"
    ema: Literal["constant", "cosine"] | None = None
    local_crops: int | None = None
    min_scale: float | None = None
    epochs: int = 100


@dataclass(frozen=True)
class Progress:
    """Progress of stage 2 in optimizer steps, counted from the hand-over, where schedules start."""

    step: int
    num_steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        """Finished epochs of stage 2."""
        return self.step // max(1, self.steps_per_epoch)


class Method(nn.Module):
    """Base of all algorithms, which implement `forward` and `views`; the rest has defaults.

    `recipes` are the publication's; other hyperparameters have one optimizer for all methods.
    `rela_anchor`: the weight of the target loss in stage 2 with this project's hyperparameters. Losses
    differ in size: gradients of BYOL's are about as large as those of the target loss, VICReg's forty
    times. BYOL has a weight of 3, the others one in proportion (benchmarks/gradient_sizes.py).
    """

    backbone: nn.Module
    recipes = Recipes({LONGEST: Recipe(REFERENCE_OPTIMIZER)})
    rela_anchor = 3.0
    needs_labels = False
    has_momentum = False
    paper_ema: Literal["constant", "cosine"] = "cosine"
    has_local_crops = False

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__()
        self.backbone = backbone
        self.options = options

    @classmethod
    def optimizer(cls, hyperparameters: str, epochs: int, image_size: int) -> OptimizerSettings:
        """The optimizer for a training, with the rate for batches of `lr_batch_size` images."""
        if hyperparameters != "paper":
            return {"rela": RELA_OPTIMIZER, "reference": REFERENCE_OPTIMIZER}[hyperparameters]
        return cls.recipes.choose(epochs, is_small(image_size)).optimizer

    @property
    def ema(self) -> Literal["constant", "cosine"]:
        """Schedule of the momentum: the user's, else the publication's, else constant."""
        paper = self.options.hyperparameters == "paper"
        return self.options.ema or (self.paper_ema if paper else "constant")

    @property
    def exported(self) -> nn.Module:
        """The network that a finished training gives: evaluated, exported and used as a prior."""
        return self.backbone

    def views(self) -> tuple[View, ...]:
        """The random views of one image, full-sized ones first."""
        raise NotImplementedError

    def stage2_views(self) -> tuple[View, ...]:
        """`views` with another smallest share of the image in the full-sized ones.

        It is the user's `min_scale`, else with this project's hyperparameters at least `least_scale`.
        """
        size, smallest = self.options.image_size, self.options.min_scale
        if smallest is None and self.options.hyperparameters != "rela":
            return self.views()

        def enlarged(view: View) -> View:
            least = max(view.scale[0], least_scale(size)) if smallest is None else smallest
            return replace(view, scale=(least, max(least, view.scale[1])))

        return tuple(enlarged(view) if view.size == size else view for view in self.views())

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Views [B, 3, S, S] → (loss, features [B, F] of the full-sized views).

        `labels` int64 [B], −1 without a class.
        """
        raise NotImplementedError

    def before_step(self, progress: Progress) -> None:
        """Called in stage 2 after the backward pass and before the optimizer step."""

    def update_momentum(self, progress: Progress | None) -> None:
        """Called after every optimizer step; `progress` is None in stage 1."""

    def weight_decay(self, base: float, progress: Progress) -> float:
        """Weight decay of the next optimizer step of stage 2."""
        return base


class MomentumMethod(Method):
    """A method with moving averages of backbone and projector, which subclasses create.

    `reference_momentum`: the EMA coefficient at the hand-over, but with the publication's hyperparameters.
    """

    has_momentum = True
    reference_momentum = 0.99
    projector: nn.Module
    momentum_backbone: nn.Module
    momentum_projector: nn.Module

    @property
    def first_momentum(self) -> float:
        """EMA coefficient at the hand-over."""
        if self.options.hyperparameters != "paper":
            return self.reference_momentum
        found = self.recipes.choose(self.options.epochs, is_small(self.options.image_size)).momentum
        assert found is not None, "every recipe of a momentum method has one"
        return found

    def update_momentum(self, progress: Progress | None) -> None:
        """Move the averages towards the online networks."""
        momentum = momentum_at(progress, self.first_momentum, self.ema)
        ema_update(self.backbone, self.momentum_backbone, momentum)
        ema_update(self.projector, self.momentum_projector, momentum)


def momentum_at(progress: Progress | None, start: float, schedule: str) -> float:
    """EMA coefficient: STAGE1_MOMENTUM in stage 1; then `start`, constant or a half cosine up to 1."""
    if progress is None:
        return STAGE1_MOMENTUM
    if schedule == "constant":
        return start
    return float(cosine_schedule(progress.step, progress.num_steps, start, 1.0))


def head_width(published: int, feature_dim: int) -> int:
    """Width of a projection head: as published for ResNet-50, at most 4 · F for features of width F.

    Heads of width 8192 would have twelve times the weights of a ResNet-18.
    """
    return min(published, 4 * feature_dim)


M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy of the module without gradients."""
    return copy.deepcopy(module).requires_grad_(False)


def ema_update(online: nn.Module, average: nn.Module, momentum: float) -> None:
    """average ← momentum · average + (1 − momentum) · online, for all weights at once.

    Buffers (running statistics of norms) of `average` are left alone.
    """
    update = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
    update(list(average.parameters()), list(online.parameters()), 0)
