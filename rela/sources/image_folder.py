"""Folders of images → splits of (path, class) in a fixed order, without opening an image.

What folders mean is told from their names, in rela.sources.splits.layout.
"""

import contextlib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rela.errors import one_line
from rela.sources.csv_table import SUFFIXES as TABLES
from rela.sources.csv_table import may_have_labels
from rela.sources.source import ImageSource, ListingProgress, SourceOptions
from rela.sources.splits.layout import read_layout
from rela.sources.splits.names import split_of
from rela.sources.splits.tree import is_folder, require_folder, tree_of_folder

WHAT = "a folder of class folders or images"
SUFFIXES: tuple[str, ...] = ()
_LOOKED_AT = 1000
_NOT_OF_TRAIN = re.compile(r"submission|sample|^metadata\.")  # of test; read with its folder
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
    tree = tree_of_folder(root)
    source = read_layout(tree, root, options or SourceOptions())
    links = [p for p in source.stray_files[:_LOOKED_AT] if _is_broken_link(root / p)]
    if links:
        note = (
            f"{len(links):,} of the stray files are links to nothing, such as {one_line(links[0])}"
        )
        source = replace(source, notes=[*source.notes, note])
    if _may_be_unlabelled(source) and (table := _table_of_labels(root, tree.files)):
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


def _may_be_unlabelled(source: ImageSource) -> bool:
    """Whether classes are not known, or are called as parts are: `images_001`, `images_002`."""
    names = {re.sub("[0-9]+", "", name) for name in source.class_names}
    return not source.labelled or (
        len(source.class_names) > 1 and len(names) == 1 and "" not in names
    )


def _is_broken_link(path: Path) -> bool:
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110, PTH114 (no error)


def _table_of_labels(root: Path, files: Sequence[str]) -> Path | None:
    """A table that may have labels, among the files of a folder or beside it under its name."""
    own = root.resolve()
    beside = [f"{own.name}{more}{suffix}" for suffix in TABLES for more in ("", "_labels")]
    tables = [root / name for name in files if name.lower().endswith(TABLES)]
    tables += [own.parent / name for name in beside]
    usable = (t for t in tables if not _NOT_OF_TRAIN.search(t.name.lower()))
    return next((table for table in usable if may_have_labels(table)), None)


def _splits_beside(root: Path) -> list[str]:
    """Names of other splits beside a folder that is named as one."""
    own = root.resolve()
    if not split_of(own.name):
        return []
    with contextlib.suppress(OSError), os.scandir(own.parent) as entries:
        names = [entry.name for entry in entries if split_of(entry.name) and is_folder(entry)]
        return sorted(f"{one_line(name)}/" for name in names if name != own.name)
    return []
