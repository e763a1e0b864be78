"""Names of images in a table → files: names without a suffix, and a folder of images beside the table.

As of Kaggle: `train.csv` lists `0a1b`, and the file is `train/0a1b.jpg`.
"""

import contextlib
import os
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from rela.errors import ChoiceError, DataError, RelaError, one_line
from rela.sources.splits.tree import is_folder, is_image_name, is_system_name, sorted_entries

_TRIED = 100  # names of a table, all over it, that tell where its images are
_DEEPEST, _MOST_FOLDERS = 2, 2000


class ImageNames:
    """Looks up names of images in a folder; every folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root, self._inside = root, [root]
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def look_below(self, table: Path, names: Sequence[str]) -> list[Path]:
        """If the names are no files in the root, look them up in the folders below that have them.

        Returns these. Raises ChoiceError, with a command for each, if a name is in several, and none of
        them is called as the table.
        """
        tried = names[:: len(names) // _TRIED + 1]
        if any(self._files_of(self._root, name) for name in tried):
            return []
        found: dict[Path, set[str]] = {}
        for folder in _below(self._root):
            if here := {name for name in tried if self._files_of(folder, name)}:
                found[folder] = here
        if len(set().union(*found.values())) < sum(map(len, found.values())):
            called = [folder for folder in found if folder.name == table.stem]
            if len(called) != 1:
                raise _several(table, list(found))
            self._inside = called
        elif found:
            self._inside = list(found)
        return self._inside if found else []

    def file_of(self, name: str, where: str) -> str | None:
        """The file within the root that a name means, None if there is none.

        A name with the suffix of an image is not looked up in the root. Raises DataError if several files
        have the name.
        """
        if is_image_name(name) and self._inside == [self._root]:
            return name
        found = [
            (folder / file).relative_to(self._root).as_posix()
            for folder in self._inside
            for file in self._files_of(folder, name)
        ]
        if len(found) > 1:
            files = " and ".join(map(one_line, found[:3]))
            shown = one_line(str(self._root))
            raise DataError(f"{where}: {one_line(name)} is {files} in {shown}; give it the suffix")
        return found[0] if found else None

    def _files_of(self, folder: Path, name: str) -> list[str]:
        """Names within a folder of the files that a name may mean."""
        if os.path.isfile(folder / name):  # noqa: PTH113 (false for a name that is too long)
            return [name]
        if is_image_name(name):
            return []
        inside, slash, base = name.rpartition("/")
        return [inside + slash + file for file in self._by_stem(folder / inside).get(base, [])]

    def _by_stem(self, folder: Path) -> dict[str, list[str]]:
        """Name without its suffix → the images in a folder; empty if it cannot be read."""
        if folder not in self._listed:
            found = self._listed[folder] = defaultdict(list)
            with contextlib.suppress(RelaError):
                for entry in sorted_entries(folder):
                    if is_image_name(entry.name) and not is_system_name(entry.name):
                        found[entry.name.rpartition(".")[0]].append(entry.name)
        return self._listed[folder]


def _several(table: Path, folders: Sequence[Path]) -> ChoiceError:
    commands = ", ".join(
        f"`rela convert {one_line(shlex.join([str(table), '--image-root', str(folder)]))}`"
        for folder in folders[:4]
    )
    where = one_line(str(table))
    return ChoiceError(
        f"{where}: {len(folders):,} folders hold images of these names; choose one: {commands}"
    )


def _below(folder: Path) -> Iterator[Path]:
    """Folders in it, and in these."""
    waiting, count = [(folder, 0)], 0
    while waiting and count < _MOST_FOLDERS:
        parent, depth = waiting.pop(0)
        with contextlib.suppress(RelaError):
            for entry in sorted_entries(parent):
                if not is_system_name(entry.name) and is_folder(entry):
                    count += 1
                    yield Path(entry.path)
                    if depth + 1 < _DEEPEST:
                        waiting.append((Path(entry.path), depth + 1))
