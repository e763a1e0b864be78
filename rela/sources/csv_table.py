"""A CSV or TSV of paths and labels with a header: `path,label,split`, the latter two optional; or JSON lines.

Paths are relative to the file's folder or to --image-root, and must stay within it: an untrusted list
must not read arbitrary files. Absolute paths are accepted if they lead into that folder. Images may lie in a
folder beside the list, and their names may lack the suffix; see image_names.py.
"""

import contextlib
import csv
import itertools
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rela.errors import ChoiceError, DataError, RelaError, UnavailableError, UnsafeError, one_line
from rela.pipeline.files import regular_file
from rela.sources.image_names import ImageNames
from rela.sources.labels import Labelled, choose_splits, find_classes
from rela.sources.source import ImageSource, ListingProgress, SourceOptions, Unusable

WHAT = "a CSV or TSV of paths and labels"
SUFFIXES = (".csv", ".tsv", ".jsonl")
OPTIONS = ("image_column", "label_column", "image_root", "split")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
PATH_COLUMNS = (  # in order of preference, in any case
    "path", "file_name", "filename", "file_path", "filepath", "image_path", "image_name", "image", "image_id",
    "img", "id", "id_code",
)  # fmt: skip
_LABEL, _SPLIT, _TRAIN = "label", "split", "train"
_LONGEST_LINE = 1 << 20  # characters of a JSON object
Row = tuple[int, str, str, str]


def recognises(path: Path) -> bool:
    """Whether `path` is a .csv, .tsv or .jsonl file."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The images in the order of the rows; whether files of names with a suffix exist is not checked.

    Raises ChoiceError for a missing column, UnsafeError for a path that leaves the folder, DataError for
    a malformed row or an image that is listed twice.
    """
    root = options.image_root or path.parent
    shown, notes = one_line(str(path)), []
    columns, rows = _rows(path, options)
    named = [
        (line, _within(root, image, f"{shown}, line {line}"), label, split)
        for line, image, label, split in rows
    ]
    if not named:
        raise DataError(f"{shown} lists no images")
    names = ImageNames(root)
    if options.image_root is None and (inside := names.look_below(path, [row[1] for row in named])):
        notes.append(f"the images are in {', '.join(one_line(str(f)) for f in inside[:4])}")
    by_split: dict[str, list[Labelled]] = {}
    lines: dict[str, int] = {}
    for line, name, label, split in named:
        where = f"{shown}, line {line}"
        file = names.file_of(name, where)
        if lines.setdefault(file or name, line) != line:
            raise DataError(f"{where}: {one_line(name)} is already in line {lines[file or name]}")
        place = None if file else Unusable(f"no image of that name in {one_line(str(root))}")
        by_split.setdefault(split, []).append(Labelled(file or name, label or None, place))
    others = _others(columns, options.image_column)
    if options.label_column is None and _LABEL not in map(str.lower, columns) and others:
        notes.append(
            f"{shown} has no column {_LABEL!r}, only {one_line(', '.join(others)[:200])}; to have labels, "
            f"name one: --label-column {one_line(shlex.quote(others[0]))}"
        )
    chosen, ignored = choose_splits(one_line(str(path)), by_split, options.split)
    splits = {split: by_split[name] for split, name in chosen.items()}
    class_names, samples = find_classes(path, splits)
    return ImageSource(
        root, class_names, samples, chosen.get("val", ""), ignored_splits=ignored, notes=notes
    )


def _rows(path: Path, options: SourceOptions) -> tuple[list[str], list[Row]]:
    where = one_line(str(path))
    if path.is_dir():
        raise DataError(f"{where}: found a folder, expected a CSV or TSV of paths and labels")
    try:
        with open(
            path, encoding="utf-8-sig", errors="surrogateescape", newline="", opener=regular_file
        ) as file:
            columns, rows = table_rows(file, path.name, where, options)
            return columns, list(rows)
    except OSError as error:
        raise UnavailableError(f"{where} cannot be read: {error.strerror}") from error


def may_have_labels(path: Path) -> bool:
    """Whether it is a table with a column of images and another one that is not of splits."""
    with contextlib.suppress(RelaError, OSError, ValueError):
        with open(path, encoding="utf-8-sig", newline="", opener=regular_file) as file:
            header = table_rows(file, path.name, "", SourceOptions())[0]
        return _image_column(header) is not None and bool(_others(header))
    return False


def _image_column(header: list[str]) -> str | None:
    """The column that is called as those of paths are."""
    lower = [name.lower() for name in header]
    return next((header[lower.index(name)] for name in PATH_COLUMNS if name in lower), None)


def _others(header: list[str], image: str | None = None) -> list[str]:
    """Columns that may be of labels: neither of images nor of splits."""
    image = image or _image_column(header)
    return [name for name in header if name != image and name.lower() != _SPLIT]


def table_rows(
    file: TextIO, name: str, where: str, options: SourceOptions
) -> tuple[list[str], Iterator[Row]]:
    """(names of the columns, (line, path, label, split) of every row) of a file called `name`.

    A missing label is "", a missing split train.
    """
    if name.lower().endswith(".jsonl"):
        header, cells = _json_lines(file, where)
    else:
        header, cells = _delimited(file, name, where)
    return header, _chosen_columns(header, cells, where, options)


def _chosen_columns(
    header: list[str], rows: Iterator[tuple[int, list[str]]], where: str, options: SourceOptions
) -> Iterator[Row]:
    lower = [name.lower() for name in header]
    usual = _image_column(header) or PATH_COLUMNS[0]
    image = _column(header, options.image_column or usual, where, "image")
    label = lower.index(_LABEL) if _LABEL in lower else None
    if options.label_column is not None:
        label = _column(header, options.label_column, where, "label")
    split = lower.index(_SPLIT) if _SPLIT in lower else None
    for line, row in rows:
        if len(row) != len(header) or not row[image]:
            raise DataError(
                f"{where}, line {line}: found {len(row)} cells, expected {len(header)} as in the header, "
                "with a path"
            )
        cells = [row[i].strip() if i is not None else "" for i in (label, split)]
        yield line, row[image], cells[0], cells[1] or _TRAIN


def _delimited(
    file: TextIO, name: str, where: str
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    header = file.readline(_LONGEST_LINE)
    delimiter = _DELIMITERS.get(Path(name).suffix.lower(), ",")
    if delimiter not in header and ";" in header:  # as spreadsheets write it in much of Europe
        delimiter = ";"
    reader = csv.reader(itertools.chain([header], file), delimiter=delimiter)

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{where} is not a table: {error}") from error

    try:
        return [name.strip() for name in next(reader, [])], rows()
    except csv.Error as error:
        raise DataError(f"{where} is not a table: {error}") from error


def _json_lines(file: TextIO, where: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Objects with the keys of the first; what is not text or a number is left empty."""

    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if line.strip():
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{where}, line {number} is not valid JSON") from error
                if not isinstance(found, dict):
                    raise DataError(f"{where}, line {number} is not a JSON object")
                yield number, found

    def cell(value: Any) -> str:
        return str(value) if isinstance(value, str | int | float) else ""

    found = objects()
    first = next(found, None)
    header = list(first[1]) if first else []
    rows = itertools.chain([first] if first else [], found)
    return header, ((line, [cell(row.get(key)) for key in header]) for line, row in rows)


def _column(header: list[str], name: str, where: str, what: str) -> int:
    if name not in header:
        raise ChoiceError(
            f"{where} begins with {one_line(', '.join(header)[:200]) or 'nothing'}; expected a header "
            f"with a column {name!r}; name another one with --{what}-column"
        )
    return header.index(name)


def _within(root: Path, path: str, where: str) -> str:
    """`path` relative to `root`, whether or not it exists; raises UnsafeError if it leaves it."""
    base = os.path.abspath(root)  # noqa: PTH100 (links stay as they are)
    if "\\" in path and not os.path.lexists(os.path.join(base, path)):  # noqa: PTH118
        path = path.replace("\\", "/")  # written on Windows
    inside = os.path.relpath(os.path.join(base, path), base)  # noqa: PTH118
    if inside == os.pardir or inside.startswith(os.pardir + os.sep) or "\0" in path:
        raise UnsafeError(
            f"{where}: {one_line(path)} is outside {one_line(str(root))}; if that is intended, name "
            "the folder of the images with --image-root"
        )
    return inside
