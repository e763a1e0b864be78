"""A CSV or TSV of paths and labels with a header: `path,label,split`, the latter two optional.

Paths are relative to the file's folder or to --image-root, and must stay within it: an untrusted list
must not read arbitrary files. Absolute paths are accepted if they lead into that folder.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from rela.errors import ChoiceError, DataError, UnavailableError, UnsafeError, one_line
from rela.pipeline.files import regular_file
from rela.sources.labels import Labelled, choose_splits, find_classes
from rela.sources.source import ImageSource, ListingProgress, SourceOptions

WHAT = "a CSV or TSV of paths and labels"
SUFFIXES = (".csv", ".tsv")
OPTIONS = ("image_column", "label_column", "image_root")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PATH, _LABEL, _SPLIT, _TRAIN = "path", "label", "split", "train"


def recognises(path: Path) -> bool:
    """Whether `path` is a .csv or .tsv file."""
    return path.is_file() and path.suffix.lower() in _DELIMITERS


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The images in the order of the rows; whether their files exist is not checked.

    Raises ChoiceError for a missing column, UnsafeError for a path that leaves the folder, DataError for
    a malformed row or an image that is listed twice.
    """
    root = options.image_root or path.parent
    by_split: dict[str, list[Labelled]] = {}
    lines: dict[str, int] = {}
    for line, image, label, split in _rows(path, options):
        where = f"{one_line(str(path))}, line {line}"
        name = _within(root, image, where)
        if lines.setdefault(name, line) != line:
            raise DataError(f"{where}: {one_line(name)} is already in line {lines[name]}")
        by_split.setdefault(split, []).append(Labelled(name, label or None))
    if not by_split:
        raise DataError(f"{one_line(str(path))} lists no images")
    chosen, ignored = choose_splits(one_line(str(path)), by_split)
    splits = {split: by_split[name] for split, name in chosen.items()}
    class_names, samples = find_classes(path, splits)
    return ImageSource(root, class_names, samples, chosen.get("val", ""), ignored_splits=ignored)


def _rows(path: Path, options: SourceOptions) -> Iterator[tuple[int, str, str, str]]:
    """(line, path, label, split) of every row; a missing label is "", a missing split train."""
    delimiter = _DELIMITERS.get(path.suffix.lower(), ",")
    where = one_line(str(path))
    if path.is_dir():
        raise DataError(f"{where}: found a folder, expected a CSV or TSV of paths and labels")
    try:
        with open(
            path, encoding="utf-8-sig", errors="surrogateescape", newline="", opener=regular_file
        ) as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            image = _column(header, options.image_column or _PATH, where, "image")
            asked = options.label_column
            labelled = asked is not None or _LABEL in header
            label = _column(header, asked or _LABEL, where, "label") if labelled else None
            split = header.index(_SPLIT) if _SPLIT in header else None
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header) or not row[image]:
                    raise DataError(
                        f"{where}, line {reader.line_num}: found {len(row)} cells, expected "
                        f"{len(header)} as in the header, with a path"
                    )
                cells = [row[i].strip() if i is not None else "" for i in (label, split)]
                yield reader.line_num, row[image], cells[0], cells[1] or _TRAIN
    except csv.Error as error:
        raise DataError(f"{where} is not a table: {error}") from error
    except OSError as error:
        raise UnavailableError(f"{where} cannot be read: {error.strerror}") from error


def _column(header: list[str], name: str, where: str, what: str) -> int:
    if name not in header:
        raise ChoiceError(
            f"{where} begins with {one_line(', '.join(header)[:200]) or 'nothing'}; expected a header "
            f"with a column {name!r}; name another one with --{what}-column"
        )
    return header.index(name)


def _within(root: Path, path: str, where: str) -> str:
    """`path` relative to `root`, without looking at the disk; raises UnsafeError if it leaves it."""
    base = os.path.abspath(root)  # noqa: PTH100 (links stay as they are)
    inside = os.path.relpath(os.path.join(base, path), base)  # noqa: PTH118
    if inside == os.pardir or inside.startswith(os.pardir + os.sep) or "\0" in path:
        raise UnsafeError(
            f"{where}: {one_line(path)} is outside {one_line(str(root))}; if that is intended, name "
            "the folder of the images with --image-root"
        )
    return inside
