"""Labels → one class list and class numbers; splits → train and val."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rela.errors import ChoiceError, DataError, one_line
from rela.sources.source import Place, Sample
from rela.sources.splits.names import VAL_NAMES, split_of

Label = int | str | None
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image with its label in the source; None or a negative number: unlabelled."""

    path: str
    label: Label
    place: Place | None = None


Splits = Mapping[str, Sequence[Labelled]]


def find_classes(where: str | Path, splits: Splits) -> tuple[list[str], dict[str, list[Sample]]]:
    """The labels that occur, as class names, and the samples with their class numbers.

    Classes are in numeric order if all labels are numbers, else in alphabetical order. Raises DataError
    if only some images have labels, or if val has a label that train lacks.
    """
    labels = {s.label for samples in splits.values() for s in samples} - {None}
    missing = {label for label in labels if str(label).lower() == "nan"}  # as pandas writes them
    are_numbers = all(_NUMBER.fullmatch(str(label)) for label in labels - missing)
    value: dict[Label, Any] = {None: None}
    if are_numbers:
        labels -= missing
        value |= dict.fromkeys(missing)
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
    where: str | Path, splits: Splits, class_names: list[str]
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
    where: str | Path, class_names: list[str], splits: dict[str, list[Sample]]
) -> tuple[list[str], dict[str, list[Sample]]]:
    """As given; raises DataError if only some images of a split have labels, or only those of val."""
    labelled = {}
    for split, samples in splits.items():
        without = [s for s in samples if s.label < 0]
        if without and len(without) < len(samples):
            raise DataError(
                f"{one_line(str(where))}: {len(without):,} of {len(samples):,} images have no label, "
                f"such as {one_line(without[0].path)}; label all images of a split, or none"
            )
        labelled[split] = bool(samples) and not without
    if labelled.get("val") and not labelled["train"]:
        raise DataError(f"{one_line(str(where))}: val has labels, and train has none")
    return (class_names if labelled["train"] else []), splits


def merge_classes(
    where: str, class_lists: Iterable[Sequence[str]]
) -> tuple[list[str], dict[str, int]]:
    """One class list for several of a source's parts, and the number of each of their classes in it.

    Lists that are all the same stay as they are, else they are merged as by `find_classes`. Raises DataError
    if only some are empty.
    """
    lists = list(dict.fromkeys(tuple(each) for each in class_lists))
    if any(lists) and not all(lists):
        raise DataError(
            f"{one_line(where)}: some of its parts have labels, and some have none; label all images, or none"
        )
    if len(lists) < 2:
        names: list[str] = list(*lists)
        return names, {name: index for index, name in enumerate(names)}
    several = dict.fromkeys(name for each in lists for name in each)
    merged, found = find_classes(where, {"train": [Labelled(name, name) for name in several]})
    return merged, {sample.path: sample.label for sample in found["train"]}


def quoted_classes(names: list[str], limit: int = 8) -> str:
    """Class names for messages: `classes 'a', 'b' and 3 more`."""
    shown = ", ".join(repr(name) for name in names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"class{'es' if len(names) > 1 else ''} {shown}{more}"


def choose_splits(
    where: str, parts: dict[str, _Part], asked: str | None = None
) -> tuple[dict[str, str], list[str]]:
    """({"train": its name among `parts`, "val": its name}, names of the parts not chosen).

    Without a train split, the unnamed part or the only part is train; `asked` is train by itself. Raises
    DataError if no part can be train, ChoiceError if two can.
    """
    if asked is not None:
        return {"train": asked_split(where, parts, asked)}, []
    meant = {name: split_of(name) for name in parts}
    trains = [name for name in parts if meant[name] == "train"] or [n for n in parts if not n]
    names = ", ".join(one_line(name) for name in parts) or "no split"
    if len(trains) > 1:
        shown = ", ".join(map(one_line, trains))
        raise ChoiceError(
            f"{where} has {len(trains)} train splits, {shown}; choose one: --split {_quoted(trains[0])}"
        )
    if not trains and len(parts) != 1:
        choice = f"; choose one: --split {_quoted(next(iter(parts)))}" if parts else ""
        raise DataError(f"{where}: expected a train split, found {names}{choice}")
    chosen = {"train": (trains or list(parts))[0]}
    vals = [name for name in parts if meant[name] in VAL_NAMES and name != chosen["train"]]
    if vals:
        chosen["val"] = min(vals, key=lambda name: VAL_NAMES.index(meant[name]))
    return chosen, [name or "(none)" for name in parts if name not in chosen.values()]


def asked_split(where: str, names: Iterable[str], asked: str) -> str:
    """The name that --split means: the same, or the only one of the same meaning; else ChoiceError.

    `val` is also what `choose_splits` calls so.
    """
    names = list(names)
    found = [name for name in names if name == asked]
    if not found and (meant := split_of(asked)):
        found = [name for name in names if split_of(name) == meant]
    if not found and asked == "val":
        vals = [name for name in names if split_of(name) in VAL_NAMES]
        found = sorted(vals, key=lambda name: VAL_NAMES.index(split_of(name)))[:1]
    if len(found) != 1:
        shown = ", ".join(map(one_line, filter(None, names))) or "no splits"
        raise ChoiceError(f"--split {one_line(asked)}: {where} has {shown}")
    return found[0]


def _quoted(name: str) -> str:
    return one_line(shlex.quote(name))
