"""The commands that are disturbed: each with the one whose workspace it begins with.

`{digits}` stands for a folder of images, `{shards}` for the URL of the same images in tar files, `{out}` for
a folder in the workspace that takes what is written for other programs.
"""

_PRIOR = ("--prior", "random:shufflenet_v2_x0_5", "--batch-size", "32")
_TRAIN = (
    "--model", "shufflenet_v2_x0_5", "--image-size", "32", "--epochs", "3", "--batch-size", "64",
    "--data-ratio", "0.25", "--handover", "0.5", "--checkpoint-minutes", "0.005",
)  # fmt: skip
_CACHED = ("--dataset", "digits", *_PRIOR[:2])
_EXPORT = ("export", *_CACHED, "--force", "--output")

# name: (the one before it, words after `rela`)
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "convert": ("", ("convert", "{digits}", "--val-fraction", "0.2", "--workers", "2")),
    # rows that "embed" takes
    "convert some": (
        "convert",
        ("convert", "{digits}", "--val-fraction", "0.2", "--name", "some", "--max-images", "800"),
    ),
    "embed some": ("convert some", ("embed", "some", *_PRIOR)),
    "embed": ("embed some", ("embed", "digits", *_PRIOR)),
    "maps": ("embed", ("embed", "digits", *_PRIOR, "--dense", "1")),
    # one pass for both; maps whose projection stays are taken
    "maps and vectors": ("convert", ("embed", "digits", *_PRIOR, "--dense", "1")),
    "targets": ("maps", ()),  # no command of its own
    "train": ("targets", ("train", "digits", "--name", "run", *_TRAIN)),
    "eval": ("train", ("eval", "run", "--protocol", "knn20", "--protocol", "linear-reference")),
    "layers": (
        "convert", ("embed", "digits", *_PRIOR, "--layer", "stage3", "--layer", "conv5:flat"),
    ),
    "convert shards": ("", ("convert", "{shards}", "--name", "digits", "--workers", "2")),
    "embed shards": ("", ("embed", "{shards}", *_PRIOR, "--image-size", "32")),
    "train on maps": ("maps", ("train", "digits", "--name", "run", "--dense", "1", *_TRAIN)),
    "train from a run": (
        "train", ("train", "digits", "--name", "warm", "--init", "run", "--seed", "1", *_TRAIN),
    ),
    "module as prior": ("embed", ("embed", "digits", "--prior", "module:tiny")),
    "train a module": (
        "module as prior",
        ("train", "digits", "--name", "run", *_TRAIN, "--prior", "module:tiny", "--model", "module:tiny"),
    ),
    "plugin as prior": ("module as prior", ("embed", "digits", "--prior", "plugin:colours")),
    "train a plugin": (
        "plugin as prior",
        ("train", "digits", "--name", "run", *_TRAIN, "--prior", "plugin:colours",
         "--model", "plugin:small-net"),
    ),
    "export weights": (
        "train", ("export", "run", "--to", "torchvision", "--force", "--output", "{out}/run.pth"),
    ),
    # which the run embeds first
    "export hdf5": (
        "train", ("export", "run", "--to", "hdf5-features", "--force", "--output", "{out}/run.h5"),
    ),
    "export parquet": ("embed", (*_EXPORT, "{out}/digits.parquet", "--to", "parquet")),
    "export faiss": ("embed", (*_EXPORT, "{out}/index", "--to", "faiss")),
    # the next ones replace what is there
    "export npy": ("export faiss", (*_EXPORT, "{out}/index", "--to", "npy")),
    "outliers": ("embed", ("neighbors", "--outliers", *_CACHED, "--json", "--output", "{out}/found.png")),
    "duplicates": (
        "outliers",
        ("neighbors", "--duplicates", *_CACHED, "--threshold", "0.9", "--json",
         "--output", "{out}/found.png"),
    ),
    "neighbors": ("embed", ("neighbors", "{digits}/3/0003.png", *_CACHED, "--json")),
}  # fmt: skip
