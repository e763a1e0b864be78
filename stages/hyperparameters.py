"""What was not chosen follows the algorithm: optimizer, rate, schedules, momentum, local crops."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError
from stages.settings import TrainSettings

if TYPE_CHECKING:
    from rela.methods.method import Method
    from rela.optimizers import OptimizerSettings

_OPTIMIZER_FIELDS = ("optimizer", "lr", "weight_decay", "schedule", "warmup_epochs")
_LARGEST_WARMUP_SHARE = 0.1
_FEWEST_LARS_STEPS = 2000


def resolve_hyperparameters(settings: TrainSettings, labelled: bool) -> TrainSettings:
    """Fill in the method's own; raises ChoiceError for what it has no use for."""
    from rela.methods import method_class

    method = method_class(settings.method)
    if method.needs_labels and not labelled:
        raise ChoiceError(
            f"--method {settings.method} needs labels, and this data set has none; use class folders"
        )
    for option, has_use in (
        ("ema", method.has_momentum),
        ("local_crops", method.has_local_crops),
    ):
        if getattr(settings, option) is not None and not has_use:
            flag = "--" + option.replace("_", "-")
            raise ChoiceError(f"{flag} means nothing to --method {settings.method}; leave it out")
    kind = settings.hyperparameters or method.default_hyperparameters
    settings = replace(settings, hyperparameters=kind)
    default = _default_optimizer(method, kind).for_batch(settings.batch_size)
    # a publication's warm-up would swallow a short training
    warmup_epochs = min(default.warmup_epochs, math.ceil(settings.epochs * _LARGEST_WARMUP_SHARE))
    default = replace(default, warmup_epochs=warmup_epochs)
    if settings.optimizer not in (None, default.optimizer) and settings.lr is None:
        raise ChoiceError(
            f"--optimizer {settings.optimizer} needs an --lr; {settings.method}'s own, {default.lr:g}, "
            f"is for {default.optimizer}"
        )
    if (settings.warmup_epochs or 0) > settings.epochs:
        raise ChoiceError(
            f"--warmup-epochs {settings.warmup_epochs} are more than --epochs {settings.epochs}: the "
            "learning rate would never be reached; give fewer"
        )
    chosen: dict[str, Any] = {name: getattr(settings, name) for name in _OPTIMIZER_FIELDS}
    own = {name: getattr(default, name) for name, value in chosen.items() if value is None}
    return replace(settings, **own)


def say_if_too_short(settings: TrainSettings, num_steps: int, say: Callable[[str], None]) -> None:
    """Warn, once and in words, where LARS will hardly leave its starting point."""
    if settings.optimizer == "lars" and num_steps < _FEWEST_LARS_STEPS:
        say(
            f"{num_steps} steps are few for LARS, {settings.method}'s own optimizer, which needs "
            "thousands; --hyperparameters reference (AdamW) learns faster in a short training"
        )


def optimizer_of(settings: TrainSettings) -> "OptimizerSettings":
    """The optimizer of resolved settings."""
    from rela.methods import method_class

    assert settings.hyperparameters is not None
    default = _default_optimizer(method_class(settings.method), settings.hyperparameters)
    chosen: dict[str, Any] = {name: getattr(settings, name) for name in _OPTIMIZER_FIELDS}
    return replace(default, **chosen, lr_batch_size=None)


def _default_optimizer(method: "type[Method]", hyperparameters: str) -> "OptimizerSettings":
    from rela.methods.method import REFERENCE_OPTIMIZER

    return method.optimizer if hyperparameters == "paper" else REFERENCE_OPTIMIZER
