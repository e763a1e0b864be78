"""Names of folders and files → splits; names of classes that look alike."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePath

VAL_NAMES = (  # in order of preference
    "val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "heldout", "test", "testing", "tst",
)  # fmt: skip
_TRAIN_NAMES = ("train", "training", "trn", "trainval")
_FILLERS = frozenset(
    [
        "set", "split", "sub", "seg", "data", "dir", "folder", "ilsvrc", "imagenet", "image", "images",
        "img", "imgs", "photo", "photos", "picture", "pictures", "pic", "pics", "png", "jpg", "jpeg",
        "tif", "tiff", "clean", "cleaned", "full", "raw", "small", "original", "resized", "cropped",
        "labeled", "labelled",
    ]
)  # fmt: skip
_ENDINGS = re.compile(r"(?<=.)(set|data|images?|imgs?|dir|folder|split)+$")  # trainset, valimages
_WORD = re.compile(r"[a-z]+")
_SYNSET_TAR = re.compile(r"n[0-9]{8}\.tar")
_CAPITAL = re.compile("(?<=[a-z])(?=[A-Z])")  # trainA
_HELD_OUT = re.compile(r"(hold|held)[ _-]out")


def _words(name: str) -> list[str]:
    text = _HELD_OUT.sub(r"\1out", _CAPITAL.sub(" ", name).lower())
    found = (_ENDINGS.sub("", word) for word in _WORD.findall(text))
    return [word for word in found if word not in _FILLERS]


def _meaning(word: str) -> str:
    return "train" if word in _TRAIN_NAMES else word if word in VAL_NAMES else ""


def split_of(name: str) -> str:
    """The split that a folder's name means: `train`, one of VAL_NAMES, or "" for any other name.

    `Training_Set`, `train2017`, `hold-out` and `ILSVRC2012_img_train` are splits.
    """
    words = _words(name)
    return _meaning(words[0]) if len(words) == 1 else ""


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """The names that mean a split, and which; also by others beside them.

    `birds_train` is one beside `birds_test`, and `train_cats` is none by itself.
    """
    found, alike = dict[str, str](), defaultdict[tuple[str, ...], dict[str, str]](dict)
    for name in names:
        words = _words(name)
        meant = [split for split in map(_meaning, words) if split]
        if len(meant) == 1:
            rest = tuple(word for word in words if not _meaning(word))
            alike[rest][name] = meant[0]
    for rest, splits in alike.items():
        if not rest or ("train" in splits.values() and len(set(splits.values())) > 1):
            found |= splits
    return found


def named_split(path: PurePath) -> str:
    """The split in a file's name, or else in the name of a folder above it: `train`, `val`, ..., or "".

    `imagenet-train-0007.tar` and `train/0007.tar` belong to train.
    """
    words = _words(path.name.partition(".")[0])
    for word in [*words, *reversed(path.parts[:-1])]:
        if split := split_of(word):
            return split
    return ""


def is_synset_tar(name: str) -> bool:
    """Whether it is `n01440764.tar`, as ImageNet publishes the images of a class."""
    return bool(_SYNSET_TAR.fullmatch(name))


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ in case, spaces, or how accents are encoded, only."""
    groups: Mapping[str, list[str]] = defaultdict(list)
    for name in names:
        key = unicodedata.normalize("NFKC", name).casefold()
        groups[" ".join(key.replace("_", " ").split())].append(name)
    return [group for group in groups.values() if len(group) > 1]
