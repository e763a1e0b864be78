"""From the settings that were given to those that a training runs with."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rela.errors import ChoiceError
from rela.models.preprocessing import SMALL_IMAGE_SIDE
from rela.options import check_options, flag_name
from rela.stages.train.prior import NO_PRIOR
from rela.stages.workspace.dataset import DataSet
from rela.training.loggers import parse_loggers
from rela.training.settings import OPTIMIZER_FIELDS, TrainSettings, default_optimizer

NO_METHOD = "none"


def resolve_settings(dataset: DataSet, settings: TrainSettings) -> TrainSettings:
    """Fill in what follows the data set: input size and model variant. Checks every range."""
    settings = check_settings(settings)
    image_size = settings.image_size or dataset.default_image_size
    model = settings.model or ("resnet18_small" if image_size <= SMALL_IMAGE_SIDE else "resnet18")
    return replace(settings, image_size=image_size, model=model)


def check_settings(settings: TrainSettings) -> TrainSettings:
    """Refuse what is out of range or contradicts itself; drop what has no meaning."""
    check_options(settings)
    parse_loggers(settings.logger)
    if settings.batch_size % settings.accumulate or settings.batch_size < 2 * settings.accumulate:
        raise ChoiceError(
            f"--batch-size {settings.batch_size} cannot be split by --accumulate "
            f"{settings.accumulate}; expected equal micro-batches of at least 2 images"
        )
    if settings.prior == NO_PRIOR:  # what belongs to stage 1 means nothing then
        settings = replace(
            settings,
            handover=None,
            head=TrainSettings.head,
            target_width=None,
            crops=None,
        )
    if settings.method == NO_METHOD:
        if settings.prior == NO_PRIOR or settings.handover not in (None, 1):
            raise ChoiceError(
                "--method none is stage 1 alone: it needs a prior, and no --handover; choose another "
                "--method"
            )
        settings = replace(settings, handover=1.0)
    return settings


def say_what_means_nothing(
    settings: TrainSettings, resolved: TrainSettings, say: Callable[[str], None]
) -> None:
    """Without a prior there is no stage 1: what describes it was left out."""
    described = ("handover", "head", "target_width", "crops")
    given = [n for n in described if getattr(settings, n) != getattr(resolved, n)]
    if settings.prior == NO_PRIOR and given:
        flags = ", ".join(flag_name(name) for name in given)
        say(f"{flags}: means nothing without a prior, left out")


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
    default = default_optimizer(method, kind).for_batch(settings.batch_size)
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
    chosen: dict[str, Any] = {name: getattr(settings, name) for name in OPTIMIZER_FIELDS}
    own = {name: getattr(default, name) for name, value in chosen.items() if value is None}
    return replace(settings, **own)


def say_if_too_short(settings: TrainSettings, num_steps: int, say: Callable[[str], None]) -> None:
    """Warn, once and in words, where LARS will hardly leave its starting point."""
    if settings.optimizer == "lars" and num_steps < _FEWEST_LARS_STEPS:
        say(
            f"{num_steps} steps are few for LARS, {settings.method}'s own optimizer, which needs "
            "thousands; --hyperparameters reference (AdamW) learns faster in a short training"
        )
