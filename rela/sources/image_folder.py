"""Folders of images → splits of (path, class) in a fixed order, without opening an image.

What folders mean is told from their names, in rela.sources.splits.layout.
"""

import contextlib
import os
import shlex
from dataclasses import replace
from pathlib import Path

from rela.errors import RelaError, one_line
from rela.pipeline.files import regular_file
from rela.sources.csv_table import PATH_COLUMNS, table_rows
from rela.sources.csv_table import SUFFIXES as SUFFIXES_OF_TABLES
from rela.sources.source import ImageSource, ListingProgress, SourceOptions
from rela.sources.splits.layout import read_layout
from rela.sources.splits.metadata import METADATA_NAMES
from rela.sources.splits.names import split_of
from rela.sources.splits.tree import is_folder, require_folder, sorted_entries, tree_of_folder

WHAT = "a folder of class folders or images"
SUFFIXES: tuple[str, ...] = ()
_LOOKED_AT = 1000
OPTIONS = ("layout", "label_column", "split")


def recognises(path: Path) -> bool:
    """Any folder; `read` finds out whether it holds images."""
    return path.is_dir()


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The images that `scan` finds."""
    return scan(path, options)


def scan(root: Path, options: SourceOptions | None = None) -> ImageSource:
    """List the images below `root`, ordered by class name, then by path; raises as `read_layout`."""
    require_folder(root)
    source = read_layout(tree_of_folder(root), root, options or SourceOptions())
    links = [p for p in source.stray_files[:_LOOKED_AT] if _is_broken_link(root / p)]
    if links:
        note = (
            f"{len(links):,} of the stray files are links to nothing, such as {one_line(links[0])}"
        )
        source = replace(source, notes=[*source.notes, note])
    if not source.labelled and (table := _table_of_labels(root)):
        command = one_line(shlex.join(["rela", "convert", str(table)]))
        note = f"{one_line(table.name)} may list their labels: `{command}`"
        source = replace(source, notes=[*source.notes, note])
    beside = [] if "val" in source.splits else _splits_beside(root)
    if beside:
        command = one_line(shlex.join(["rela", "convert", str(root.resolve().parent)]))
        lie = "lies" if len(beside) == 1 else "lie"
        note = f"{', '.join(beside)} {lie} beside {one_line(root.name)}/; `{command}` reads both"
        source = replace(source, notes=[*source.notes, note])
    return source


def _is_broken_link(path: Path) -> bool:
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110, PTH114 (no error)


def _table_of_labels(root: Path) -> Path | None:
    """A table with a column of images and one of labels in the folder, or beside it under its name."""
    own = root.resolve()
    found = [root / entry.name for entry in sorted_entries(root)]
    found += [
        root.parent / f"{own.name}{end}"
        for suffix in SUFFIXES_OF_TABLES
        for end in (suffix, f"_labels{suffix}")
    ]
    for table in found:
        if table.suffix.lower() in SUFFIXES_OF_TABLES and table.name.lower() not in METADATA_NAMES:
            with (
                contextlib.suppress(RelaError, OSError),
                open(
                    table, encoding="utf-8-sig", errors="replace", newline="", opener=regular_file
                ) as file,
            ):
                columns = {
                    name.lower() for name in table_rows(file, table.name, "", SourceOptions())[0]
                }
                if columns & set(PATH_COLUMNS) and columns - {*PATH_COLUMNS, "split"}:
                    return table
    return None


def _splits_beside(root: Path) -> list[str]:
    """Names of other splits beside a folder that is named as one."""
    own = root.resolve()
    if not split_of(own.name):
        return []
    with contextlib.suppress(OSError), os.scandir(own.parent) as entries:
        names = [entry.name for entry in entries if split_of(entry.name) and is_folder(entry)]
        return sorted(f"{one_line(name)}/" for name in names if name != own.name)
    return []
