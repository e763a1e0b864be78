"""The settings of every stage, each with its default, help and range. Light: the CLI imports this."""

from dataclasses import dataclass
from pathlib import Path

from rela.methods import METHOD_NAMES
from rela.optimizers import OPTIMIZER_NAMES, SCHEDULE_NAMES
from rela.options import option
from rela.probes.protocols import DEFAULT_PROTOCOLS, PROTOCOLS, SEGMENTATION_PROTOCOL
from rela.sources import KINDS

EXPORT_FORMATS = ("torchvision", "timm", "safetensors", "onnx", "hdf5-features")


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Everything that decides what a data set holds."""

    format: str = option("auto", "What SRC is, where that is not plain.", choices=("auto", *KINDS))
    image_column: str | None = option(
        None,
        "Column of the images, in tables where several could be meant.",
        kind=str,
        shown="path in a CSV, else by its type",
    )
    label_column: str | None = option(
        None,
        "Column of the classes, likewise.",
        kind=str,
        shown="label in a CSV, else by its type",
    )
    image_root: Path | None = option(  # noqa: RUF009 (a field, as all of them)
        None,
        "Folder that the paths of a CSV lie in.",
        kind=Path,
        shown="the CSV's own",
    )
    val_fraction: float = option(
        0.0,
        "Share of each class cut off as validation split, if SRC brings none.",
        minimum=0,
        maximum=0.9,
    )
    write_mode: str = option(
        "auto",
        "How images are stored; auto: raw up to 128×128 pixels, JPEG above.",
        choices=("auto", "raw", "jpg", "proportion"),
    )
    jpeg_quality: int = option(
        90,
        "For images that have to be encoded; plain JPEG files are stored as they are.",
        minimum=1,
        maximum=100,
    )
    jpeg_share: float = option(0.5, "Share of JPEGs in mode proportion.", minimum=0, maximum=1)
    max_side: int | None = option(
        None,
        "Shrink larger images to this longer side, in pixels.",
        minimum=1,
        kind=int,
        shown="as they are",
    )
    alpha_on_white: bool = option(
        False, "Composite transparent images on white instead of dropping alpha."
    )
    on_bad_image: str = option(
        "stop", "List bad images and stop, or leave them out.", choices=("stop", "skip")
    )
    seed: int = option(0, "Decides the validation split and the JPEG share.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class PriorSettings:
    """What finds a prior, beside its name."""

    weights: str | Path | None = option(  # noqa: RUF009 (a field, as all of them)
        None,
        "Local weights for the architecture --prior: a checkpoint or .safetensors.",
        kind=Path,
        shown="the published ones",
    )
    arch: str | None = option(
        None, "Architecture of the weights in --prior file:PATH.", kind=str, shown="none"
    )
    layer: str = option(
        "pooled",
        "Features of another layer: class, patches or class+patches of a vision transformer, or a "
        "module's name (layer3, blocks.8).",
    )
    trust_code: bool = option(False, "Open TorchScript files, which runs the code in them.")
    image_size: int | None = option(
        None,
        "Input size in pixels of a prior that has none of its own.",
        minimum=1,
        kind=int,
        shown="the data set's, at most 224",
    )
    seed: int = option(0, "Initial weights of a random prior.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """How to compute representations; `crops` and `dtype` are part of what they mean."""

    crops: int = option(
        0,
        "Random crops per image, which stage 1 replays as its views; 0: one centre crop.",
        minimum=0,
        maximum=1000,
    )

    dtype: str = option("float16", "Of the stored representations.", choices=("float16", "float32"))
    batch_size: int = option(128, "Images per forward pass.", minimum=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    threads: int | None = option(None, "Loading threads.", minimum=1, kind=int, shown="all cores")


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """How to compare priors."""

    rows: int = option(
        5000, "Images to compare, drawn by a fixed rule; the same for every prior.", minimum=2
    )


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that decides the trained weights, and where to compute them."""

    prior: str | None = option(
        None,
        "Name of an embedded prior (A+B if combined), none, or random.",
        kind=str,
        shown="the one embedded",
    )
    crops: int | None = option(
        None, "Targets of how many crops per image.", minimum=0, kind=int, shown="those embedded"
    )
    method: str = option(
        "byol", "The algorithm of stage 2; none: stage 1 alone.", choices=METHOD_NAMES
    )
    hyperparameters: str | None = option(
        None,
        "ReLA's reference (AdamW, constant rate and momentum), or the algorithm's own paper.",
        choices=("reference", "paper"),
        kind=str,
        shown="reference for byol and dino, else paper",
    )
    model: str | None = option(
        None,
        "A torchvision model, where NAME_small has the stem for small images, or timm:NAME.",
        kind=str,
        shown="resnet18, or resnet18_small up to 64 pixels",
    )
    image_size: int | None = option(
        None,
        "Size of the views in pixels.",
        minimum=1,
        kind=int,
        shown="the data set's, at most 224",
    )
    handover: float | None = option(
        None,
        "Fraction of all steps given to stage 1.",
        minimum=0,
        maximum=1,
        kind=float,
        shown="the adaptive rule",
    )
    head: str = option(
        "fixed",
        "Stage 1's linear layer: random as in the reference, or trained.",
        choices=("fixed", "learned"),
    )
    target_width: int | None = option(
        None,
        "Most principal components that the targets keep; the paper keeps as many as the model has "
        "features, which any large number does.",
        minimum=1,
        kind=int,
        shown="those with 90 % of the variance, at least 16",
    )
    data_ratio: float = option(
        1.0, "Share of the images that each epoch draws afresh.", above=0, maximum=1
    )
    epochs: int = option(100, "Passes over the drawn images.", minimum=1)
    batch_size: int = option(128, "Images per optimizer step, over all devices.", minimum=2)
    accumulate: int = option(1, "Micro-batches that a batch is split into.", minimum=1)
    optimizer: str | None = option(
        None, "The optimizer.", choices=OPTIMIZER_NAMES, kind=str, shown="the method's"
    )
    lr: float | None = option(
        None, "Peak learning rate, as it is.", above=0, kind=float, shown="the method's"
    )
    weight_decay: float | None = option(
        None, "Weight decay.", minimum=0, kind=float, shown="the method's"
    )
    schedule: str | None = option(
        None,
        "Course of the learning rate over both stages.",
        choices=SCHEDULE_NAMES,
        kind=str,
        shown="the method's",
    )
    warmup_epochs: int | None = option(
        None, "Linear warm-up of the learning rate.", minimum=0, kind=int, shown="the method's"
    )
    ema: str | None = option(
        None,
        "Course of a momentum network's coefficient, from the hand-over on.",
        choices=("constant", "cosine"),
        kind=str,
        shown="the method's",
    )
    local_crops: int | None = option(
        None, "Small views beside the two full ones.", minimum=0, kind=int, shown="the method's"
    )
    min_scale: float | None = option(
        None,
        "Smallest share of the image that a full view of stage 2 shows.",
        above=0,
        maximum=1,
        kind=float,
        shown="the method's",
    )
    seed: int = option(0, "Initial weights, order and views.", minimum=0)
    precision: str = option(
        "auto",
        "Of the arithmetic; auto: 16-mixed on a GPU, 32-true on the CPU.",
        choices=("auto", "32-true", "16-mixed", "bf16-mixed"),
    )
    devices: str = option(
        "auto", "How many GPUs, or which: 2, or 0,3; a process for each, or as many without GPUs."
    )
    logger: str = option(
        "tensorboard",
        "Where the figures go beside metrics.jsonl: tensorboard, wandb, mlflow, several with commas, or "
        "none.",
    )
    checkpoint_minutes: float = option(
        10.0, "Longest time between two checkpoints; every epoch ends with one.", minimum=0
    )
    rank_timeout: float = option(
        5.0,
        "Minutes that one of several processes waits for the others before it gives them up.",
        above=0,
    )


# options of a training that say where and how long to compute: runs that differ only in them are equal
WHERE_TO_RUN = ("devices", "logger", "checkpoint_minutes", "rank_timeout")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """What to measure, and how often."""

    protocol: tuple[str, ...] = option(
        DEFAULT_PROTOCOLS,
        "How to measure; say it several times for several. What was measured before is kept.",
        choices=tuple(PROTOCOLS),
        shown=", ".join(DEFAULT_PROTOCOLS),
    )
    seeds: int = option(
        1,
        "Repeat trained probes with this many probe seeds: initial layer, order, labelled subset.",
        minimum=1,
    )
    voc: str | Path | None = option(  # noqa: RUF009 (a field, as all of them)
        None,
        "For segmentation: a folder in the layout of Pascal VOC 2012.",
        kind=Path,
        shown="none",
    )
    voc_classes: int = option(
        SEGMENTATION_PROTOCOL.num_classes,
        "Classes of --voc, background included.",
        minimum=2,
        maximum=255,
    )


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What a report shows of features."""

    maps: int = option(
        3, "Maps of features: of the best run of so many ways of training; 0: none.", minimum=0
    )
    projection: str = option(
        "pca", "How features are brought to two dimensions.", choices=("pca", "umap")
    )


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """For whom to write a run's backbone, and where."""

    to: str = option(
        "safetensors",
        "For torchvision.models, for timm, for whatever built the model, as ONNX, or the features of a "
        "data set.",
        choices=EXPORT_FORMATS,
    )
    output: str | Path | None = option(  # noqa: RUF009 (a field, as all of them)
        None,
        "File to write, or a folder for it; .pth or .safetensors for torchvision and timm.",
        kind=Path,
        shown="RUN-FORMAT in this folder",
    )
    dataset: str | None = option(
        None, "Data set for hdf5-features.", kind=str, shown="the run's own"
    )
    force: bool = option(False, "Replace a file that is there already.")


@dataclass(frozen=True, kw_only=True)
class NeighborsSettings:
    """Among what to look for neighbours, and for how many."""

    dataset: str | None = option(None, "Data set to look in.", kind=str, shown="the only one")
    split: str = option("train", "Which of its images.", choices=("train", "val"))
    prior: str | None = option(
        None,
        "By whose representations: an embedded prior, as `rela embed` was given it (A+B if combined), or "
        "a run.",
        kind=str,
        shown="the one embedded",
    )
    count: int = option(10, "How many neighbours.", minimum=1)
