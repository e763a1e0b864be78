"""Lists of labels beside images that lie in one folder, as ImageNet and Tiny-ImageNet publish them.

A file counts only if it gives each of the images a class that train has:

- `NAME CLASS ...` on every line, such as `val_annotations.txt` or `LOC_val_solution.csv`;
- one class per line, in the order of the images' names, such as the list of synsets of a validation set;
- one number per line, such as the ground truth of ILSVRC's development kit, beside the kit's `meta.mat` or
  a list of the classes.
"""

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from rela.errors import ChoiceError, one_line
from rela.sources.splits.tree import Folder

_SUFFIXES = (".txt", ".csv", ".tsv")
_MOST_FILES, _MOST_FOLDERS = 200, 50
_LARGEST_LIST, _MOST_CHARACTERS = 1 << 23, 1 << 25  # of one, of all; ImageNet's longest have 2 MB
_LARGEST_MATLAB_FILE_BYTES = 1 << 18  # the kit's has 58 KB
_DEEPEST = 3  # folders below the root
_ILSVRC_CLASSES = 1000
# never Kaggle's sample of a submission, which has a class for each image, nor the labels of train
_MAY_BE_OF_VAL = re.compile(
    r"^(?!.*(train|submission|sample|metadata\.)[^/]*$).*(val|dev|test|truth|label|solution|annot|answer|gt)"
)
_SEPARATORS = re.compile(r"[\s,;]+")
_NUMBER = re.compile(r"[0-9]{1,9}")

Lines = list[list[str]]


def listed_labels(
    root: Folder, images: Folder, classes: Sequence[str], where: str
) -> tuple[dict[str, str], str]:
    """({name of an image in `images`: its class}, the path of the list); empty without a list.

    `root` is the folder that was given, `classes` are those of train. Raises ChoiceError if two lists
    disagree.
    """
    names, known = images.own_images, set(classes)
    found: dict[str, str] = {}
    found_in = ""
    tables = dict(_tables(root))
    for path, lines in tables.items():
        if not _MAY_BE_OF_VAL.search(path.lower()):
            continue
        labels = _named(lines, images, known) or _in_order(path, lines, names, known)
        if not labels and _is_numbers(lines, len(names)):
            labels = _numbered(root, path, lines, names, known, tables)
        if labels and found and labels != found:
            raise ChoiceError(
                f"{where}: {one_line(found_in)} and {one_line(path)} give different classes to the images "
                f"in {one_line(images.path)}/; move one of them elsewhere"
            )
        if labels and not found:
            found, found_in = labels, path
    return found, found_in


def _tables(root: Folder) -> Iterator[tuple[str, Lines]]:
    """Text files near the root, the nearest first, as rows of their first two words."""
    left = _MOST_CHARACTERS
    for folder, name in itertools.islice(_files(root, _SUFFIXES), _MOST_FILES):
        with folder.open_text(name) as file:
            text = file.read(_LARGEST_LIST + 1)
        if len(text) <= min(left, _LARGEST_LIST):
            left -= len(text)
            rows = (_SEPARATORS.split(line.strip(), 2)[:2] for line in text.splitlines())
            yield folder.within(name), [row for row in rows if row[0]]


def _files(root: Folder, suffixes: str | tuple[str, ...]) -> Iterator[tuple[Folder, str]]:
    """(folder, file) below the root; folders with many folders, which are classes, are not entered."""
    waiting = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop(0)
        yield from ((folder, name) for name in folder.files if name.lower().endswith(suffixes))
        if depth < _DEEPEST and len(folder.folders) <= _MOST_FOLDERS:
            waiting += [(each, depth + 1) for each in folder.folders]


def _named(lines: Lines, images: Folder, known: set[str]) -> dict[str, str]:
    """`NAME CLASS ...`, the name with or without its folders and suffix."""
    names = images.own_images
    wanted = {key: name for name in names for key in (name, name.rpartition(".")[0])}
    found: dict[str, str] = {}
    for words in lines:
        folders, _, file = words[0].rpartition("/")
        name = wanted.get(file)
        if folders and not f"/{images.path}".endswith(f"/{folders}"):
            continue  # of another split
        if name is None or len(words) < 2 or words[1] not in known:
            continue
        if found.setdefault(name, words[1]) != words[1]:
            return {}
    return found if len(found) == len(names) else {}


def _in_order(path: str, lines: Lines, names: list[str], known: set[str]) -> dict[str, str]:
    labels = [words[0] for words in lines]
    if len(labels) != len(names) or not known.issuperset(labels):
        return {}
    if len(set(labels)) == len(known) == len(labels) and not re.search("val|truth", path.lower()):
        return {}  # a list of the classes, by chance as long as the images
    return dict(zip(names, labels, strict=True))


def _is_numbers(lines: Lines, count: int) -> bool:
    return len(lines) == count and all(_NUMBER.fullmatch(words[-1]) for words in lines)


def _numbered(
    root: Folder,
    path: str,
    lines: Lines,
    names: list[str],
    known: set[str],
    tables: dict[str, Lines],
) -> dict[str, str]:
    """One number per line, or `NAME NUMBER`, and a list that numbers the classes."""
    numbers = [int(words[-1]) for words in lines]
    if len(lines[0]) > 1:
        by_name = {
            words[0].rpartition("/")[2]: number
            for words, number in zip(lines, numbers, strict=True)
        }
        if not by_name.keys() >= set(names):
            return {}
        numbers = [by_name[name] for name in names]
    for numbering in _numberings(root, path, known, tables, first=0 if 0 in numbers else 1):
        if set(numbers) <= numbering.keys():
            return {name: numbering[n] for name, n in zip(names, numbers, strict=True)}
    return {}


def _numberings(
    root: Folder, path: str, known: set[str], tables: dict[str, Lines], first: int
) -> Iterable[dict[int, str]]:
    """Number → class, by `meta.mat`, by lines `CLASS NUMBER ...`, or by the order of the lines."""
    for folder, name in _files(root, "meta.mat"):
        yield _matlab_numbering(folder, name)
    for other, lines in tables.items():
        listed = [words[0] for words in lines]
        if other == path or len(set(listed)) < len(listed) or not known <= set(listed):
            continue
        if all(len(words) > 1 and _NUMBER.fullmatch(words[1]) for words in lines):
            yield {int(words[1]): words[0] for words in lines}
        # ILSVRC's own numbers, from 1, are not in the order of the names, and its usual lists are
        elif first == 0 or len(listed) != _ILSVRC_CLASSES or listed != sorted(listed):
            yield dict(enumerate(listed, first))


def _matlab_numbering(folder: Folder, name: str) -> dict[int, str]:
    """ILSVRC's number → synset; empty without SciPy, which the extra `demo` brings."""
    try:
        loadmat = import_module("scipy.io").loadmat
        with folder.tree.open(folder.within(name)) as file:
            content = io.BytesIO(file.read(_LARGEST_MATLAB_FILE_BYTES))
        synsets: Any = loadmat(content, squeeze_me=True, variable_names=["synsets"])["synsets"]
        return {
            int(n): str(synset)
            for n, synset in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
        }
    except Exception:  # a file of another kind, damaged, or of a form that SciPy does not read
        return {}
