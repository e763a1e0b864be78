"""The files of a source: one file, those of a folder, or those that match a pattern."""

import contextlib
import glob
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rela.errors import DataError, one_line
from rela.sources.splits.tree import is_folder, is_image_name, is_system_name

_RANGE = re.compile(r"\{(\d{1,12})\.\.(\d{1,12})\}")
_MOST_FILES = 1_000_000  # of one range
_SHARD_NUMBER = re.compile(r"-\d{5}-of-\d{5}\.parquet$")


def is_pattern(path: Path) -> bool:
    """Whether it is a pattern such as `train-*.tar` or `train-{000..146}.tar`, and not an existing file."""
    return glob.has_magic(str(path).replace("{", "*")) and not os.path.lexists(path)


def has_suffix(path: Path, suffix: str) -> bool:
    """Whether `path` is a file with this suffix, or a pattern of such files."""
    return path.name.lower().endswith(suffix) and (path.is_file() or is_pattern(path))


def list_files(path: Path, suffix: str) -> tuple[Path, list[Path]]:
    """(root, files sorted by name) of a file, a folder or a pattern; raises DataError if there are none.

    Hidden files and folders and those of systems are skipped; links to folders are not followed.
    """
    if path.is_dir():
        root, files = path, sorted(_below(path, suffix))
    elif is_pattern(path):
        root, files = fixed_part(path), sorted(_matching(path))
    else:
        root, files = path.parent, [path]
    if not files:
        raise DataError(f"{one_line(str(path))}: found no {suffix} files there")
    for file in files:
        if not file.is_file():
            found = "is not a regular file" if file.exists() else "no such file"
            raise DataError(f"{one_line(str(file))}: {found}, expected a {suffix} file")
    return root, files


def fixed_part(pattern: Path) -> Path:
    """The folder above the first component with a wildcard or range."""
    parent = pattern.parent
    while glob.has_magic(str(parent).replace("{", "*")):
        parent = parent.parent
    return parent


def total_bytes(files: Iterable[Path]) -> int:
    """The sum of the sizes of the files that exist; a missing file is an error when it is read."""
    found = 0
    for file in files:
        with contextlib.suppress(OSError):
            found += file.stat().st_size
    return found


def typical_suffix(folder: Path) -> str:
    """What a folder holds: `image`, `.parquet`, `.tar`, or "" for none of these.

    Shards at the top or in `data/` that are numbered as on the Hugging Face Hub decide first, because
    their documentation may have images beside them; then images at any depth. The walk ends at the
    first image.
    """
    for top in (folder, folder / "data"):
        if any(_SHARD_NUMBER.search(entry.name) for entry in _entries(str(top))):
            return ".parquet"
    found, seen, waiting = "", set[tuple[int, int]](), deque([str(folder)])
    while waiting:
        parent = waiting.popleft()
        identity = _identity(parent)
        if identity in seen:  # a link to a parent folder
            continue
        seen.add(identity)
        for entry in _entries(parent):
            if is_system_name(entry.name):
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
    """Entries of a folder; none if it cannot be read, which is an error when the images are listed."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from entries


def _below(folder: Path, suffix: str) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_system_name(name)]
        for name in files:
            if name.lower().endswith(suffix) and not is_system_name(name):
                yield Path(parent, name)


def _matching(pattern: Path) -> Iterator[Path]:
    for name in ranges_filled(str(pattern)):
        if glob.has_magic(name):
            yield from map(Path, glob.glob(name, recursive=True))  # noqa: PTH207
        else:
            yield Path(name)


def ranges_filled(text: str) -> Iterator[str]:
    """`a-{08..10}` → a-08, a-09, a-10."""
    found = _RANGE.search(text)
    if found is None:
        yield text
        return
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST_FILES:
        raise DataError(
            f"{one_line(text)}: {found[0]} is not a range of at most {_MOST_FILES:,} files"
        )
    for number in range(first, last + 1):
        filled = f"{number:0{len(found[1])}}"
        yield from ranges_filled(text[: found.start()] + filled + text[found.end() :])


def shards_of_range(names: Sequence[str]) -> str | None:
    """a-08.tar, a-09.tar → `a-{08..09}.tar`, which a shell has filled; None of other names, or of one."""
    if not names[0].endswith((".tar", ".parquet")):
        return None
    for first in re.finditer(r"\d+", names[0]):
        last = re.compile(r"\d+").match(names[-1], first.start())
        if last is not None and int(last[0]) - int(first[0]) == len(names) - 1 > 0:
            range_ = f"{{{first[0]}..{last[0]}}}"
            text = names[0][: first.start()] + range_ + names[0][first.end() :]
            if [*ranges_filled(text)] == [*names]:
                return text
    return None
