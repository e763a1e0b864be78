"""From the settings that were given to those that a training runs with."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.artifact import Artifact
from rela.errors import ChoiceError
from rela.loggers import parse_loggers
from rela.options import check_options, flag_name
from rela.preprocessing import SMALL_IMAGE_SIDE
from stages.chosen_prior import NO_PRIOR
from stages.embed import default_image_size
from stages.hyperparameters import optimizer_of
from stages.settings import TrainSettings

if TYPE_CHECKING:
    from rela.training import TrainingPlan

NO_METHOD = "none"


def resolve_settings(dataset: Artifact, settings: TrainSettings) -> TrainSettings:
    """Fill in what follows the data set: input size and model variant. Checks every range."""
    settings = check_settings(settings)
    image_size = settings.image_size or default_image_size(dataset)
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


def training_plan(settings: TrainSettings) -> "TrainingPlan":
    """Resolved settings as `rela.training` takes them."""
    from rela.training import TrainingPlan

    assert settings.model is not None and settings.image_size is not None
    return TrainingPlan(
        method=settings.method,
        hyperparameters=settings.hyperparameters,  # type: ignore[arg-type]
        ema=settings.ema,  # type: ignore[arg-type]
        local_crops=settings.local_crops,
        min_scale=settings.min_scale,
        optimizer=optimizer_of(settings),
        model=settings.model,
        image_size=settings.image_size,
        handover=settings.handover,
        learn_head=settings.head == "learned",
        data_ratio=settings.data_ratio,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        seed=settings.seed,
        precision=settings.precision,
        devices=settings.devices,
        loggers=parse_loggers(settings.logger),
        checkpoint_seconds=60 * settings.checkpoint_minutes,
        rank_timeout_seconds=60 * settings.rank_timeout,
    )
