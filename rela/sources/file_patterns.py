"""Which files a source consists of: one, those in a folder, or those that fit a pattern."""

import contextlib
import glob
import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from rela.errors import DataError, one_line
from rela.sources.image_folder import is_folder, is_image_name

_RANGE = re.compile(r"\{(\d{1,12})\.\.(\d{1,12})\}")
_MOST_FILES = 1_000_000  # of one range
_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".csv", ".tsv", ".parquet")
_SHARD_NUMBER = re.compile(r"-\d{5}-of-\d{5}\.parquet$")


def default_name(path: Path) -> str:
    """What a data set made from `path` is called: a file without its suffix, a folder as it is."""
    if is_pattern(path):
        return _fixed_part(path).resolve().name
    name = path.resolve().name
    if path.is_file():
        suffix = next((s for s in _SUFFIXES if name.lower().endswith(s)), "")
        name = name[: len(name) - len(suffix)]
    return name


def is_pattern(path: Path) -> bool:
    """`train-*.tar` or `train-{000..146}.tar`, and no file of that name."""
    return glob.has_magic(str(path).replace("{", "*")) and not os.path.lexists(path)


def has_suffix(path: Path, suffix: str) -> bool:
    """Whether `path` is such a file, or a pattern of such files."""
    return path.name.lower().endswith(suffix) and (path.is_file() or is_pattern(path))


def list_files(path: Path, suffix: str) -> tuple[Path, list[Path]]:
    """(root, files by name) for a file, a folder or a pattern; raises DataError where there is none.

    Hidden files and folders are passed over, links to folders not followed.
    """
    if path.is_dir():
        root, files = path, sorted(_below(path, suffix))
    elif is_pattern(path):
        root, files = _fixed_part(path), sorted(_matching(path))
    else:
        root, files = path.parent, [path]
    if not files:
        raise DataError(f"{one_line(str(path))}: found no {suffix} files there")
    for file in files:
        if not file.is_file():
            found = "is not a regular file" if file.exists() else "no such file"
            raise DataError(f"{one_line(str(file))}: {found}, expected a {suffix} file")
    return root, files


def telling_suffix(folder: Path) -> str:
    """What a folder is a folder of: `image`, `.parquet`, `.tar`, or nothing of these.

    Shards at the top or in `data/` that are numbered as on the Hugging Face Hub tell first, whatever
    pictures its documentation has; then images, wherever they lie. The walk ends at the first one.
    """
    for top in (folder, folder / "data"):
        if any(_SHARD_NUMBER.search(entry.name) for entry in _entries(str(top))):
            return ".parquet"
    found, seen, waiting = "", set[tuple[int, int]](), deque([str(folder)])
    while waiting:
        parent = waiting.popleft()
        identity = _identity(parent)
        if identity in seen:  # a link that leads up
            continue
        seen.add(identity)
        for entry in _entries(parent):
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                waiting.append(entry.path)
            elif is_image_name(entry.name):
                return "image"
            elif entry.name.lower().endswith((".parquet", ".tar")):
                found = found or os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
    return found


def _identity(folder: str) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        status = os.stat(folder)
        return status.st_dev, status.st_ino
    return 0, 0


def _entries(folder: str) -> "Iterator[os.DirEntry[str]]":
    """What is in a folder; one that cannot be read is left to whoever reads the images."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from entries


def _below(folder: Path, suffix: str) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield Path(parent, name)


def _fixed_part(pattern: Path) -> Path:
    """The folder that a pattern begins with."""
    parent = pattern.parent
    while glob.has_magic(str(parent).replace("{", "*")):
        parent = parent.parent
    return parent


def _matching(pattern: Path) -> Iterator[Path]:
    for name in _ranges_filled(str(pattern)):
        if glob.has_magic(name):
            yield from map(Path, glob.glob(name, recursive=True))  # noqa: PTH207
        else:
            yield Path(name)


def _ranges_filled(text: str) -> Iterator[str]:
    """`a-{08..10}` → a-08, a-09, a-10."""
    found = _RANGE.search(text)
    if found is None:
        yield text
        return
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST_FILES:
        raise DataError(
            f"{one_line(text)}: {found[0]} is no range of at most {_MOST_FILES:,} files"
        )
    for number in range(first, last + 1):
        filled = f"{number:0{len(found[1])}}"
        yield from _ranges_filled(text[: found.start()] + filled + text[found.end() :])
