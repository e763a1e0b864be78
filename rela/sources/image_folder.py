"""Folders of images → splits of (path, class) in a fixed order, without opening an image.

What folders mean is told from their names, in rela.sources.splits.layout.
"""

import contextlib
import os
import shlex
from dataclasses import replace
from pathlib import Path

from rela.errors import one_line
from rela.sources.source import ImageSource, ListingProgress, SourceOptions
from rela.sources.splits.layout import read_layout
from rela.sources.splits.names import split_of
from rela.sources.splits.tree import is_folder, require_folder, tree_of_folder

WHAT = "a folder of class folders or images"
SUFFIXES: tuple[str, ...] = ()
OPTIONS = ("layout", "label_column")


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
    beside = [] if "val" in source.splits else _splits_beside(root)
    if beside:
        command = one_line(shlex.join(["rela", "convert", str(root.resolve().parent)]))
        lie = "lies" if len(beside) == 1 else "lie"
        note = f"{', '.join(beside)} {lie} beside {one_line(root.name)}/; `{command}` reads both"
        source = replace(source, notes=[*source.notes, note])
    return source


def _splits_beside(root: Path) -> list[str]:
    """Names of other splits beside a folder that is named as one."""
    own = root.resolve()
    if not split_of(own.name):
        return []
    with contextlib.suppress(OSError), os.scandir(own.parent) as entries:
        names = [entry.name for entry in entries if split_of(entry.name) and is_folder(entry)]
        return sorted(f"{one_line(name)}/" for name in names if name != own.name)
    return []
