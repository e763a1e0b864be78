"""The settings of every stage, each with its default, help and range. Light: the CLI imports this."""

from dataclasses import dataclass

from rela.methods import METHOD_NAMES
from rela.options import option


@dataclass(frozen=True)
class ConvertSettings:
    """Everything that decides what a data set holds."""

    val_fraction: float = option(
        0.0,
        "Share of each class cut off as validation split, if the folder brings none.",
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


@dataclass(frozen=True)
class EmbedSettings:
    """How to compute representations; only `dtype` is part of what they mean."""

    dtype: str = option("float16", "Of the stored representations.", choices=("float16", "float32"))
    batch_size: int = option(128, "Images per forward pass.", minimum=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    threads: int | None = option(None, "Loading threads.", minimum=1, kind=int, shown="all cores")


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the trained weights, and where to compute them."""

    prior: str | None = option(
        None, "Name of an embedded prior, none, or random.", kind=str, shown="the one embedded"
    )
    method: str = option("byol", "The algorithm of stage 2.", choices=METHOD_NAMES)
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
    data_ratio: float = option(
        1.0, "Share of the images that each epoch draws afresh.", above=0, maximum=1
    )
    epochs: int = option(100, "Passes over the drawn images.", minimum=1)
    batch_size: int = option(128, "Images per optimizer step, over all devices.", minimum=2)
    accumulate: int = option(1, "Micro-batches that a batch is split into.", minimum=1)
    lr: float = option(1e-3, "AdamW's learning rate, constant.", above=0)
    weight_decay: float = option(0.01, "AdamW's weight decay.", minimum=0)
    seed: int = option(0, "Initial weights, order and views.", minimum=0)
    precision: str = option(
        "auto",
        "Of the arithmetic; auto: 16-mixed on a GPU, 32-true on the CPU.",
        choices=("auto", "32-true", "16-mixed", "bf16-mixed"),
    )
    devices: str = option("auto", "How many GPUs, or which: 2, or 0,3.")
