"""The options of every job, each with default, help and range. Light."""

from dataclasses import dataclass
from pathlib import Path

from rela.evaluation.protocols import DEFAULT_PROTOCOLS, PROTOCOLS, SEGMENTATION_PROTOCOL
from rela.options import option
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
        None, "Column of the classes, likewise.", kind=str, shown="label in a CSV, else by its type"
    )
    image_root: Path | None = option(
        None, "Folder that the paths of a CSV lie in.", kind=Path, shown="the CSV's own"
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

    weights: str | Path | None = option(
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
    voc: str | Path | None = option(
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
    output: str | Path | None = option(
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
