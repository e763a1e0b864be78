"""Image data sets of Hugging Face: folders written by `save_to_disk`, or Parquet files as on the Hub.

Read with pyarrow only (extra `hf`): loading scripts are not run and paths in cells are not followed.
"""

import json
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, DataError, one_line
from rela.pipeline.files import read_regular
from rela.sources.arrow_tables import (
    Columns,
    arrow_rows,
    find_columns,
    named_damage,
    parquet_rows,
    require_pyarrow,
)
from rela.sources.file_patterns import has_suffix, list_files, total_bytes, typical_suffix
from rela.sources.labels import Labelled, check_classes, choose_splits, find_classes
from rela.sources.source import ImageSource, ListingProgress, SourceOptions
from rela.sources.splits.names import named_split

WHAT = "a Hugging Face data set (save_to_disk, or Parquet files)"
SUFFIXES = (".parquet",)
OPTIONS = ("image_column", "label_column", "split")
_SPLITS_FILE, _STATE_FILE = "dataset_dict.json", "state.json"


def recognises(path: Path) -> bool:
    """Whether `path` is a folder written by `save_to_disk`, or Parquet files (one, a folder, a pattern)."""
    if has_suffix(path, ".parquet"):
        return True
    return path.is_dir() and (_is_saved(path) or typical_suffix(path) == ".parquet")


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The rows of every split, in the order of file names.

    Raises DataError for a damaged file, or one with other columns than those before it.
    """
    require_pyarrow()
    saved = path.is_dir() and _is_saved(path)
    root, by_split = (path, _saved_files(path)) if saved else _parquet_files(path)
    chosen, ignored = choose_splits(one_line(str(path)), by_split, options.split)
    num_bytes = sum(total_bytes(by_split[name]) for name in chosen.values())
    columns: Columns | None = None
    splits: dict[str, list[Labelled]] = {}
    for split, name in chosen.items():
        splits[split] = []
        for file in by_split[name]:
            own, rows = _read_file(file, root, options)
            columns = columns or own
            if own != columns:
                raise DataError(
                    f"{one_line(str(file))} has other columns or classes than the files before it"
                )
            splits[split] += rows
            on_progress(total_bytes([file]), num_bytes)
    if columns is None or columns.class_names is None:
        class_names, samples = find_classes(path, splits)
    else:
        class_names, samples = check_classes(path, splits, columns.class_names)
    return ImageSource(root, class_names, samples, chosen.get("val", ""), ignored_splits=ignored)


def _read_file(file: Path, root: Path, options: SourceOptions) -> tuple[Columns, list[Labelled]]:
    """The images of one file, named `FILE/ROW`."""
    where, name = one_line(str(file)), str(file.relative_to(root))
    if file.exists() and not file.is_file():  # pyarrow would wait for a pipe
        raise DataError(f"{where} is not a regular file, expected an Arrow file")
    read_rows = parquet_rows if file.suffix.lower() == ".parquet" else arrow_rows
    with named_damage(where):
        columns, rows = read_rows(file, lambda schema: find_columns(schema, where, options))
    return columns, [
        Labelled(f"{name}/{row}", label, place) for row, (place, label) in enumerate(rows)
    ]


def _is_saved(folder: Path) -> bool:
    return (folder / _SPLITS_FILE).is_file() or (folder / _STATE_FILE).is_file()


def _saved_files(folder: Path) -> dict[str, list[Path]]:
    """Name of a split → its Arrow files, as written by `save_to_disk`."""
    if not (folder / _SPLITS_FILE).is_file():
        return {"": _arrow_files(folder)}
    names = _read_json(folder / _SPLITS_FILE).get("splits")
    if not isinstance(names, list) or not all(map(_is_name, names)):
        raise DataError(f"{one_line(str(folder / _SPLITS_FILE))} lists no splits")
    return {name: _arrow_files(folder / name) for name in names}


def _arrow_files(folder: Path) -> list[Path]:
    state = _read_json(folder / _STATE_FILE)
    entries = state.get("_data_files")
    entries = entries if isinstance(entries, list) else []
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)]
    if not names or not all(map(_is_name, names)):
        raise DataError(f"{one_line(str(folder / _STATE_FILE))} lists no files in its folder")
    if state.get("_indices_data_files"):
        raise DataError(
            f"{one_line(str(folder))} stores its row selection in a separate file; save it again with a "
            "newer version of datasets"
        )
    return [folder / str(name) for name in names]


def _is_name(name: Any) -> bool:
    """Whether it is the name of a file in a folder, not a path that leaves it."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\0"}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{one_line(str(path))} is damaged: not valid JSON") from error
    if not isinstance(found, dict):
        raise DataError(f"{one_line(str(path))} is damaged: not a JSON object")
    return found


def _parquet_files(path: Path) -> tuple[Path, dict[str, list[Path]]]:
    """Split → Parquet files, all in one folder: several folders would be several data sets."""
    root, files = list_files(path, ".parquet")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(named_split(file.relative_to(root)), []).append(file)
    for name, found in by_split.items():
        folders = sorted({str(file.parent) for file in found})
        if len(folders) > 1:
            raise ChoiceError(
                f"{one_line(str(path))} has {name or 'Parquet'} files in {len(folders)} folders, "
                f"{', '.join(map(one_line, folders[:4]))}; give one of them as SRC"
            )
    return root, by_split
