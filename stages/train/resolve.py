"""Resolve training settings: fill in the defaults that depend on data set and method."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rela.data.views import is_small
from rela.errors import ChoiceError, one_line
from rela.methods.recipes import RELA_HANDOVER
from rela.models.preprocessing import SMALL_IMAGE_SIDE
from rela.options import check_options, flag_name
from rela.stages.train.prior import NO_PRIOR
from rela.stages.workspace.dataset import DataSet
from rela.training.loggers import parse_loggers
from rela.training.settings import OPTIMIZER_FIELDS, TrainSettings

NO_METHOD = "none"
_PUBLISHED_IMAGE_SIDE = 224  # pixels; where the data set is not known yet


def resolve_settings(dataset: DataSet, settings: TrainSettings) -> TrainSettings:
    """Fill in input size and model from the data set; raises ChoiceError as `check_settings`."""
    settings = check_settings(settings)
    if settings.method == "supervised" and len(dataset.content.class_names) == 1:
        raise ChoiceError(
            f"--method supervised requires two classes or more, and data set {dataset.name} has one: "
            f"{one_line(dataset.content.class_names[0])}; choose another --method"
        )
    image_size = settings.image_size or dataset.default_image_size
    model = settings.model or ("resnet18_small" if image_size <= SMALL_IMAGE_SIDE else "resnet18")
    return replace(settings, image_size=image_size, model=model)


def check_settings(settings: TrainSettings) -> TrainSettings:
    """Raise ChoiceError for values out of range or in conflict; reset options that have no effect."""
    check_options(settings)
    parse_loggers(settings.logger)
    if settings.batch_size % settings.accumulate or settings.batch_size < 2 * settings.accumulate:
        raise ChoiceError(
            f"--batch-size {settings.batch_size} cannot be split by --accumulate "
            f"{settings.accumulate}; expected equal micro-batches of at least 2 images"
        )
    if settings.prior == NO_PRIOR:  # no stage 1: its options have no effect
        settings = replace(
            settings,
            handover=None,
            head=TrainSettings.head,
            target_width=None,
            layer=None,
            crops=None,
            dense=None,
            maps=None,
            anchor=0.0,
        )
    if settings.dense == 0:  # as without
        settings = replace(settings, dense=None)
    if settings.method == NO_METHOD:
        if settings.prior == NO_PRIOR or settings.handover not in (None, 1):
            raise ChoiceError(
                "--method none is stage 1 only: it requires a prior and no --handover; choose "
                "another --method"
            )
        settings = replace(settings, handover=1.0, anchor=0.0)
    return settings


def say_ignored_options(
    settings: TrainSettings, resolved: TrainSettings, say: Callable[[str], None]
) -> None:
    """Say which given options have no effect because there is no stage 1 without a prior."""
    described = ("handover", "head", "target_width", "layer", "crops", "dense", "maps", "anchor")
    without_effect = (n for n in described if getattr(settings, n) != getattr(resolved, n))
    given = [n for n in without_effect if getattr(settings, n) != getattr(TrainSettings, n)]
    if settings.prior == NO_PRIOR and given:
        flags = ", ".join(flag_name(name) for name in given)
        say(f"{flags}: ignored without a prior")


_LARGEST_WARMUP_SHARE = 0.1
_FEWEST_LARS_STEPS = 2000


def resolve_hyperparameters(settings: TrainSettings, labelled: bool) -> TrainSettings:
    """Fill in the method's own values; raises ChoiceError for options that it does not use."""
    from rela.methods import method_class

    method = method_class(settings.method)
    if method.needs_labels and not labelled:
        raise ChoiceError(
            f"--method {settings.method} requires labels, and this data set has none; use class folders"
        )
    for option, has_use in (("ema", method.has_momentum), ("local_crops", method.has_local_crops)):
        if getattr(settings, option) is not None and not has_use:
            flag = flag_name(option)
            raise ChoiceError(f"--method {settings.method} does not use {flag}; remove it")
    kind = settings.hyperparameters
    if settings.anchor is None:
        settings = replace(settings, anchor=method.rela_anchor if kind == "rela" else 0.0)
    if settings.handover is None and kind == "rela" and settings.prior != NO_PRIOR:
        settings = replace(settings, handover=RELA_HANDOVER)
    image_size = settings.image_size or _PUBLISHED_IMAGE_SIDE
    default = method.optimizer(kind, settings.epochs, image_size).for_batch(settings.batch_size)
    # a publication's warm-up would swallow a short training
    warmup_epochs = min(default.warmup_epochs, math.ceil(settings.epochs * _LARGEST_WARMUP_SHARE))
    default = replace(default, warmup_epochs=warmup_epochs)
    if settings.optimizer not in (None, default.optimizer) and settings.lr is None:
        raise ChoiceError(
            f"--optimizer {settings.optimizer} requires --lr; that of {settings.method}, "
            f"{default.lr:g}, is for {default.optimizer}"
        )
    if (settings.warmup_epochs or 0) > settings.epochs:
        raise ChoiceError(
            f"--warmup-epochs {settings.warmup_epochs} exceeds --epochs {settings.epochs}: the "
            "peak learning rate would never be reached; lower it"
        )
    chosen: dict[str, Any] = {name: getattr(settings, name) for name in OPTIMIZER_FIELDS}
    own = {name: getattr(default, name) for name, value in chosen.items() if value is None}
    return replace(settings, **own)


def say_if_too_short(settings: TrainSettings, num_steps: int, say: Callable[[str], None]) -> None:
    """Warn if there are too few steps for LARS to make progress, except with small images' own recipes."""
    if settings.optimizer != "lars" or is_small(settings.image_size or _PUBLISHED_IMAGE_SIDE):
        return
    if num_steps < _FEWEST_LARS_STEPS:
        say(
            f"{num_steps} steps are few for LARS, {settings.method}'s own optimizer, which needs "
            "thousands; --hyperparameters rela (AdamW) learns faster in a short training"
        )
