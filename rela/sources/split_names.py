"""Which of a source's parts is train and which is val, by what they are called."""

import re
from pathlib import PurePath
from typing import TypeVar

from rela.errors import DataError, one_line
from rela.sources.source import VAL_NAMES

_TRAIN_NAMES = ("train", "training")
_WORD = re.compile(r"[a-z]+")
_Part = TypeVar("_Part")


def named_split(path: PurePath) -> str:
    """The split that a file's name or else a folder above it names: `train`, `val`, ..., or "".

    `imagenet-train-0007.tar` and `train/0007.tar` are of train.
    """
    words: list[str] = _WORD.findall(path.name.lower().partition(".")[0])
    for word in [*words, *reversed([part.lower() for part in path.parts[:-1]])]:
        if word in _TRAIN_NAMES:
            return "train"
        if word in VAL_NAMES:
            return word
    return ""


def choose_splits(where: str, parts: dict[str, _Part]) -> tuple[dict[str, str], list[str]]:
    """({"train": its name among `parts`, "val": its name}, names of those not chosen).

    Without a train split, what has no name is train, or the only part there is. Raises DataError
    where nothing can be train.
    """
    lower = {name.lower(): name for name in parts}
    train = next((lower[n] for n in (*_TRAIN_NAMES, "") if n in lower), None)
    if train is None:
        if len(parts) != 1:
            names = ", ".join(one_line(name) for name in parts) or "no split at all"
            raise DataError(f"{where}: expected a train split, found {names}")
        train = next(iter(parts))
    chosen = {"train": train}
    val = next((lower[n] for n in VAL_NAMES if n in lower and lower[n] != train), None)
    if val is not None:
        chosen["val"] = val
    return chosen, [name or "(none)" for name in parts if name not in chosen.values()]
