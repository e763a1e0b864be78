"""The options of every job, each with default, help and range. Light."""

from dataclasses import dataclass
from pathlib import Path

from rela.evaluation.protocols import DEFAULT_PROTOCOLS, PROTOCOLS, SEGMENTATION_PROTOCOL
from rela.options import option
from rela.sources import KINDS

LAYER_HELP = (
    "Features of another layer: class, patches or class+patches of a vision transformer, or a module's name "
    "(layer3, blocks.8); averaged over space, or all of them: layer3:flat, patches:flat."
)
FEATURE_FORMATS = ("hdf5-features", "parquet", "npy", "faiss")
EXPORT_FORMATS = ("torchvision", "timm", "safetensors", "onnx", *FEATURE_FORMATS)


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Everything that decides what a data set holds."""

    format: str = option("auto", "Format of SRC.", choices=("auto", *KINDS))
    image_column: str | None = option(
        None, "Column of the images in a table.", shown="path in a CSV, else by its type"
    )
    label_column: str | None = option(
        None, "Column of the classes in a table.", shown="label in a CSV, else by its type"
    )
    image_root: Path | None = option(
        None, "Folder that the paths of a CSV are relative to.", shown="the CSV's own"
    )
    image_field: str | None = option(
        None, "Which image of each key in WebDataset shards.", shown="the only one"
    )
    layout: str | None = option(
        None,
        "Read the folders in SRC as classes, or those named train, val or test as splits.",
        choices=("classes", "splits"),
        shown="by their names; ambiguous ones are refused",
    )
    split: str | None = option(
        None, "Convert this split alone, such as an unlabelled test.", shown="train and val"
    )
    val_fraction: float | None = option(
        None,
        "Share of each class held out as validation split, if SRC has none; 0: none.",
        minimum=0,
        maximum=0.9,
        shown="0.1 if the images have labels",
    )
    max_images: int | None = option(
        None,
        "Convert at most this many images of each split, evenly from all classes: for a first try.",
        minimum=1,
        shown="all",
    )
    write_mode: str = option(
        "auto",
        "How images are stored; auto: raw up to 128×128 pixels, JPEG above.",
        choices=("auto", "raw", "jpg", "proportion"),
    )
    jpeg_quality: int = option(
        90,
        "Quality of re-encoded images; plain JPEG files are stored unchanged.",
        minimum=1,
        maximum=100,
    )
    jpeg_share: float = option(0.5, "Share of JPEGs in mode proportion.", minimum=0, maximum=1)
    max_side: int | None = option(
        None, "Shrink larger images to this longer side, in pixels.", minimum=1, shown="unchanged"
    )
    background: str = option(
        "white",
        "Colour behind transparent pixels: a name or #RRGGBB; none: ignore alpha.",
        metavar="COLOUR",
    )
    bits: int | None = option(
        None,
        "Bits of the values of 16-bit images, which often hold 10 or 12; larger values become white.",
        minimum=8,
        maximum=16,
        shown="the fewest of 8, 10, 12, 14, 16 that hold those of all images",
    )
    on_bad_image: str = option(
        "stop", "List bad images and stop, or skip them.", choices=("stop", "skip")
    )
    seed: int = option(
        0, "Seed of the validation split, of --max-images and of the JPEG share.", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class PriorSettings:
    """Options that identify a prior, in addition to its name."""

    weights: str | Path | None = option(
        None,
        "Local weights for the architecture --prior: a checkpoint or .safetensors.",
        shown="the published ones",
    )
    arch: str | None = option(
        None, "Architecture of the weights in --prior file:PATH.", shown="none"
    )
    encoder: str | None = option(
        None,
        "Which encoder of a file with several: its name in the file, such as student or state_dict_ema.",
        shown="a teacher or average, else the one that was trained",
    )
    layer: str = option("pooled", LAYER_HELP, complete="layers")
    trust_code: bool = option(False, "Allow TorchScript files; loading one runs its code.")
    image_size: int | None = option(
        None,
        "Input size of the prior in pixels.",
        minimum=1,
        shown="the published one, else the data set's, at most 224",
    )
    resize: int | None = option(
        None,
        "Resize the shorter side to this, in pixels, before the central crop.",
        minimum=1,
        shown="the published one",
    )
    interpolation: str | None = option(
        None,
        "Interpolation of resizing.",
        choices=("bilinear", "bicubic"),
        shown="the published one",
    )
    mean: str | None = option(
        None,
        "Mean of pixels in [0, 1], one number or R,G,B.",
        metavar="R,G,B",
        shown="the published one",
    )
    std: str | None = option(
        None,
        "Standard deviation of pixels in [0, 1], one number or R,G,B.",
        metavar="R,G,B",
        shown="the published one",
    )
    seed: int = option(0, "Seed of the weights of a random prior.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """How to compute representations; `crops`, `dtype` and `precision` are part of their fingerprint."""

    crops: int = option(
        0,
        "Random crops per image, which stage 1 replays as its views; 0: one centre crop.",
        minimum=0,
        maximum=1000,
    )

    dtype: str = option(
        "float16", "Number format of stored representations.", choices=("float16", "float32")
    )
    batch_size: int = option(128, "Images per forward pass.", minimum=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    engine: str = option(
        "torch",
        "What computes features. On a CPU: torch is PyTorch, eager or with oneDNN's linear layers, whichever "
        "is faster here; auto: or openvino, or onnxruntime, if one is installed and faster still. On a GPU: "
        "compiled is PyTorch with torch.compile; auto: that for many images, if it is faster.",
        choices=("torch", "auto", "eager", "onednn", "onnxruntime", "openvino", "compiled"),
    )
    precision: str = option(
        "auto",
        "Number format of the arithmetic; auto: float32 on a CPU, float16 on a GPU. bf16 is for CPUs and "
        "refused where it is slower or far from float32.",
        choices=("auto", "bf16"),
    )
    threads: int | None = option(None, "Loading threads.", minimum=1, shown="all cores")


@dataclass(frozen=True, kw_only=True)
class DenseSettings:
    """Maps of features beside the vectors; all of it is part of their fingerprint."""

    dense: int = option(
        0,
        "Keep a map of K × K positions of every image, too, for `rela train --dense`: of the last map of a "
        "CNN, the patches of a vision transformer, or the map of --layer; 0: none.",
        metavar="K",
        minimum=0,
        maximum=64,
    )
    dense_width: int = option(
        64, "Most principal components of a position of --dense.", minimum=1, maximum=4096
    )
    dense_dtype: str = option(
        "int8",
        "Number format of --dense; int8 with a scale for each component.",
        choices=("int8", "float16"),
    )


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """How to compare priors."""

    rows: int = option(
        5000, "Images to compare, drawn with a fixed seed; the same for every prior.", minimum=2
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """What to measure, and with how many seeds."""

    protocol: tuple[str, ...] = option(
        DEFAULT_PROTOCOLS,
        "Evaluation protocol; can be repeated. Existing results are reused.",
        choices=tuple(PROTOCOLS),
        shown=", ".join(DEFAULT_PROTOCOLS),
    )
    seeds: int = option(
        1,
        "Number of probe seeds for trained probes: initial layer, order, labelled subset.",
        minimum=1,
    )
    voc: str | Path | None = option(
        None,
        "For segmentation and dense-knn: a folder in the layout of Pascal VOC 2012.",
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
    """How a report shows features."""

    maps: int = option(
        3,
        "Number of feature maps, each of the best run of one way of training; 0: none.",
        minimum=0,
    )
    projection: str = option(
        "pca", "Projection of features to two dimensions.", choices=("pca", "umap")
    )


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """The format of an export, and where to write it."""

    to: str = option(
        "safetensors",
        "Format: weights for torchvision.models, for timm, or under the names of the library that built "
        "the model (safetensors); an ONNX file; or features with paths and labels: an HDF5 or Parquet file, "
        "or a folder with a NumPy array (npy) or a faiss index.",
        choices=EXPORT_FORMATS,
    )
    output: str | Path | None = option(
        None,
        "File or folder to write, or the folder to write it in; .pth or .safetensors for torchvision and "
        "timm.",
        shown="RUN-FORMAT in the current folder",
    )
    dataset: str | None = option(None, "Data set of the features.", shown="the run's own")
    prior: str | None = option(
        None,
        "Instead of a run's, the cached features of an embedded prior.",
        shown="a run's features",
        complete="embedded_priors",
    )
    force: bool = option(False, "Replace an existing export.")


@dataclass(frozen=True, kw_only=True)
class NeighborsSettings:
    """What to search for, where, and how much of it to show."""

    text: str | None = option(
        None, "Instead of IMAGE: words, such as 'a red shoe', for a prior clip:NAME.", shown="none"
    )
    duplicates: bool = option(
        False, "Instead of IMAGE: groups of images that are nearly the same, over all splits."
    )
    outliers: bool = option(
        False,
        "Instead of IMAGE: the images that are least like their nearest ones, over all splits.",
    )
    dataset: str | None = option(None, "Data set to search.", shown="the only one")
    split: str | None = option(
        None,
        "Split to search.",
        choices=("train", "val"),
        shown="train for IMAGE and --text, else all that are embedded",
    )
    prior: str | None = option(
        None,
        "Representations to compare: an embedded prior, named as for `rela embed` (A+B if combined), or "
        "a run.",
        shown="the one embedded",
        complete="embedded_priors",
    )
    count: int = option(10, "Number of neighbours, groups or outliers to show.", minimum=1)
    threshold: float | None = option(
        None,
        "For --duplicates: least similarity, a cosine of centred features.",
        minimum=-1,
        maximum=1,
        shown="0.95",
    )
    k: int | None = option(
        None, "For --outliers: number of nearest images to compare with.", minimum=1, shown="10"
    )
    output: str | Path | None = option(
        None,
        "For --duplicates and --outliers: the picture to write, a PNG.",
        shown="DATASET-duplicates.png or DATASET-outliers.png in the current folder",
    )
