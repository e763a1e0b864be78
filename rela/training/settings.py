"""Every option of a training: its default, help, choices and range."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rela.methods import METHODS
from rela.methods.optimizers import OPTIMIZER_NAMES, SCHEDULE_NAMES
from rela.methods.recipes import HYPERPARAMETERS, Hyperparameters
from rela.options import option

if TYPE_CHECKING:
    from rela.methods.optimizers import OptimizerSettings

OPTIMIZER_FIELDS = ("optimizer", "lr", "weight_decay", "schedule", "warmup_epochs")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that decides the trained weights, and where to compute them."""

    prior: str | None = option(
        None,
        "Name of an embedded prior (A+B if combined), none, or random.",
        shown="the one embedded",
        complete="learned_priors",
    )
    layer: str | None = option(
        None,
        "Layer of the prior's features, if several are embedded.",
        shown="the one embedded",
        complete="layers",
    )
    crops: int | None = option(
        None, "Crops per image of the targets.", minimum=0, shown="those embedded"
    )
    dense: float | None = option(
        None,
        "Weight in stage 1 of the loss on maps (--dense of rela embed), beside that on vectors.",
        minimum=0,
        shown="0: without maps",
    )
    maps: str | None = option(
        None,
        "Name of the maps for --dense, if several are embedded.",
        shown="those embedded",
        complete="maps",
    )
    method: str = option(
        "byol", "The algorithm of stage 2; none: stage 1 only.", choices=tuple(METHODS)
    )
    hyperparameters: str = option(
        "rela",
        "This project's, for short trainings with a prior; those of ReLA's reference code (AdamW, constant "
        "rate and momentum); or those of the algorithm's paper.",
        choices=HYPERPARAMETERS,
    )
    model: str | None = option(
        None,
        "A torchvision model (NAME_small: with a stem for small images), timm:NAME, or plugin:NAME of an "
        "installed package.",
        shown="that of --init, else resnet18, or resnet18_small up to 64 pixels",
        complete="models",
    )
    init: str | None = option(
        None,
        "Begin with the weights of a prior, a run or a file, which fit the model.",
        metavar="PRIOR|RUN|FILE",
        shown="random weights by --seed",
        complete="priors",
    )
    image_size: int | None = option(
        None, "Side of the views in pixels.", minimum=1, shown="the data set's, at most 224"
    )
    handover: float | None = option(
        None,
        "Fraction of all steps spent in stage 1.",
        minimum=0,
        maximum=1,
        shown="0.5 with --hyperparameters rela, else the adaptive rule",
    )
    head: str = option(
        "fixed",
        "Stage 1's linear layer: random as in the reference, or trained.",
        choices=("fixed", "learned"),
    )
    target_width: int | None = option(
        None,
        "Maximum number of principal components in the targets. The paper keeps as many as the model has "
        "features; any large number does the same.",
        minimum=1,
        shown="those with 90 % of the variance, at least 16",
    )
    anchor: float | None = option(
        None,
        "Weight of the target loss that stage 2 keeps.",
        minimum=0,
        shown="by the method with --hyperparameters rela, 3 for BYOL; else 0",
    )
    data_ratio: float = option(
        1.0, "Share of the images in each epoch, drawn anew every time.", above=0, maximum=1
    )
    epochs: int = option(100, "Passes over that share of the images.", minimum=1)
    batch_size: int = option(128, "Images per optimizer step, over all devices.", minimum=2)
    accumulate: int = option(1, "Micro-batches that a batch is split into.", minimum=1)
    optimizer: str | None = option(
        None, "The optimizer.", choices=OPTIMIZER_NAMES, shown="the method's"
    )
    lr: float | None = option(
        None, "Peak learning rate, not scaled.", above=0, shown="the method's"
    )
    weight_decay: float | None = option(None, "Weight decay.", minimum=0, shown="the method's")
    schedule: str | None = option(
        None,
        "Learning rate schedule over both stages.",
        choices=SCHEDULE_NAMES,
        shown="the method's",
    )
    warmup_epochs: int | None = option(
        None, "Linear warm-up of the learning rate.", minimum=0, shown="the method's"
    )
    ema: str | None = option(
        None,
        "Schedule of the momentum network's coefficient in stage 2.",
        choices=("constant", "cosine"),
        shown="the method's",
    )
    local_crops: int | None = option(
        None, "Small views in addition to the two full ones.", minimum=0, shown="the method's"
    )
    min_scale: float | None = option(
        None,
        "Smallest share of the image in a full view of stage 2.",
        above=0,
        maximum=1,
        shown="the method's; with --hyperparameters rela larger for small images",
    )
    seed: int = option(0, "Seed of initial weights, order and views.", minimum=0)
    precision: str = option(
        "auto",
        "Number format of the arithmetic; auto: 16-mixed on a GPU, 32-true on the CPU; fastest: on a "
        "CPU with bfloat16 what a first step shows to be faster.",
        choices=("auto", "fastest", "32-true", "16-mixed", "bf16-mixed"),
    )
    devices: str = option(
        "auto",
        "Number of GPUs, or their indices: 2, or 0,3. One process per GPU; without GPUs, the number of CPU "
        "processes.",
    )
    logger: str = option(
        "tensorboard",
        "Loggers in addition to metrics.jsonl: tensorboard, wandb, mlflow, several separated by commas, or "
        "none.",
    )
    checkpoint_minutes: float = option(
        10.0,
        "Maximum minutes between checkpoints; epochs end with one, unless saving takes too much of the time.",
        minimum=0,
    )
    rank_timeout: float = option(
        5.0, "Minutes that a process waits for the others before it gives up.", above=0
    )


# options that leave no trace in keys when they are not given, so that the keys of older runs stay valid
ADDED_LATER = ("layer", "init", "dense")
# options that do not change the weights: runs that differ only in them are equal
WHERE_TO_RUN = ("devices", "logger", "checkpoint_minutes", "rank_timeout")


@dataclass(frozen=True, kw_only=True)
class ResolvedSettings(TrainSettings):
    """Settings of a training without gaps: every default is filled in.

    - `hyperparameters`, `ema`, `local_crops`, `min_scale`: see rela.methods.method.MethodOptions;
    - `handover`: None is the adaptive rule, a number the fraction of all steps given to stage 1;
    - `batch_size`: images per optimizer step over all devices, in `accumulate` micro-batches.
    """

    model: str
    image_size: int
    hyperparameters: Hyperparameters
    anchor: float = 0.0
    ema: Literal["constant", "cosine"] | None = None

    @property
    def optimizer_settings(self) -> "OptimizerSettings":
        """The optimizer, with the learning rate for this batch size."""
        from rela.methods import method_class

        method = method_class(self.method)
        default = method.optimizer(self.hyperparameters, self.epochs, self.image_size)
        chosen: dict[str, Any] = {name: getattr(self, name) for name in OPTIMIZER_FIELDS}
        return replace(default, **chosen, lr_batch_size=None)
