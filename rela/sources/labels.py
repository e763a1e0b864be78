"""Labels → one class list and class numbers; names of splits → train and val."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from rela.errors import DataError, one_line
from rela.sources.source import Place, Sample

Label = int | str | None
VAL_NAMES = ("val", "valid", "validation", "test")
_TRAIN_NAMES = ("train", "training")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_WORD = re.compile(r"[a-z]+")
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image with its label in the source; None or a negative number: unlabelled."""

    path: str
    label: Label
    place: Place | None = None


Splits = Mapping[str, Sequence[Labelled]]


def find_classes(where: Path, splits: Splits) -> tuple[list[str], dict[str, list[Sample]]]:
    """The labels that occur, as class names, and the samples with their class numbers.

    Classes are in numeric order if all labels are numbers, else in alphabetical order. Raises DataError
    if only some images have labels, or if val has a label that train lacks.
    """
    labels = {s.label for samples in splits.values() for s in samples} - {None}
    are_numbers = all(_NUMBER.fullmatch(str(label)) for label in labels)
    value: dict[Label, Any] = {None: None}
    spellings: dict[Any, set[str]] = {}
    for label in labels:
        found: Any = int(label or 0) if are_numbers else str(label)
        value[label] = None if are_numbers and found < 0 else found
        spellings.setdefault(found, set()).add(str(label))
    values = {split: {value[s.label] for s in of} - {None} for split, of in splits.items()}
    in_order = sorted(values["train"])
    class_names = [  # "007" stays, unless "7" also occurs
        str(found) if len(spellings[found]) > 1 else min(spellings[found]) for found in in_order
    ]
    unknown = sorted(values.get("val", set()) - values["train"])
    if unknown:
        train_has = quoted_classes(class_names) if class_names else "no labels"
        raise DataError(
            f"{one_line(str(where))}: val has {quoted_classes(list(map(str, unknown)))}, which train "
            f"lacks; train has {train_has}"
        )
    number = {found: i for i, found in enumerate(in_order)}
    numbered = {
        split: [Sample(s.path, number.get(value[s.label], -1), s.place) for s in samples]
        for split, samples in splits.items()
    }
    return _all_or_none(where, class_names, numbered)


def check_classes(
    where: Path, splits: Splits, class_names: list[str]
) -> tuple[list[str], dict[str, list[Sample]]]:
    """As `find_classes`, for labels that are indices of `class_names`, all of which are kept.

    Raises DataError for two classes of one name, a label beyond the classes, or if only some images
    have labels.
    """
    if len(set(class_names)) < len(class_names):
        raise DataError(f"{one_line(str(where))}: two of its classes have the same name")
    numbered: dict[str, list[Sample]] = {}
    for split, samples in splits.items():
        numbered[split] = []
        for s in samples:
            label = -1 if s.label is None else int(s.label)
            if label >= len(class_names):
                raise DataError(
                    f"{one_line(str(where))}: {one_line(s.path)} has the label {label}, and there are "
                    f"{len(class_names)} classes"
                )
            numbered[split].append(Sample(s.path, max(label, -1), s.place))
    return _all_or_none(where, class_names, numbered)


def _all_or_none(
    where: Path, class_names: list[str], splits: dict[str, list[Sample]]
) -> tuple[list[str], dict[str, list[Sample]]]:
    without = [s for samples in splits.values() for s in samples if s.label < 0]
    num_images = sum(map(len, splits.values()))
    if without and len(without) < num_images:
        raise DataError(
            f"{one_line(str(where))}: {len(without):,} of {num_images:,} images have no label, such as "
            f"{one_line(without[0].path)}; label all images, or none"
        )
    return ([] if without else class_names), splits


def quoted_classes(names: list[str], limit: int = 8) -> str:
    """Class names for messages: `classes 'a', 'b' and 3 more`."""
    shown = ", ".join(repr(name) for name in names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"class{'es' if len(names) > 1 else ''} {shown}{more}"


def named_split(path: PurePath) -> str:
    """The split in a file's name, or else in the name of a folder above it: `train`, `val`, ..., or "".

    `imagenet-train-0007.tar` and `train/0007.tar` belong to train.
    """
    words: list[str] = _WORD.findall(path.name.lower().partition(".")[0])
    for word in [*words, *reversed([part.lower() for part in path.parts[:-1]])]:
        if word in _TRAIN_NAMES:
            return "train"
        if word in VAL_NAMES:
            return word
    return ""


def choose_splits(where: str, parts: dict[str, _Part]) -> tuple[dict[str, str], list[str]]:
    """({"train": its name among `parts`, "val": its name}, names of the parts not chosen).

    Without a train split, the unnamed part or the only part is train. Raises DataError if no part can
    be train.
    """
    lower = {name.lower(): name for name in parts}
    train = next((lower[n] for n in (*_TRAIN_NAMES, "") if n in lower), None)
    if train is None:
        if len(parts) != 1:
            names = ", ".join(one_line(name) for name in parts) or "no split"
            raise DataError(f"{where}: expected a train split, found {names}")
        train = next(iter(parts))
    chosen = {"train": train}
    val = next((lower[n] for n in VAL_NAMES if n in lower and lower[n] != train), None)
    if val is not None:
        chosen["val"] = val
    return chosen, [name or "(none)" for name in parts if name not in chosen.values()]
