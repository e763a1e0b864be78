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

_TRIED = 20  # names of a table that tell where its images are
_DEEPEST, _MOST_FOLDERS = 2, 2000


class ImageNames:
    """Looks names up; every folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def folder_of_images(self, table: Path, names: Sequence[str]) -> Path:
        """The folder in which the names of a table are files: its own, or the one below that has them.

        Its own if none has. Raises ChoiceError, with a command for each, if several have, and none of them is
        called as the table.
        """
        own, tried = table.parent, names[:_TRIED]
        if any(self._files_of(own, name) for name in tried):
            return own
        found = [
            folder for folder in _below(own) if any(self._files_of(folder, name) for name in tried)
        ]
        called = [folder for folder in found if folder.name == table.stem]
        if len(found) < 2 or len(called) == 1:
            return (called or found or [own])[0]
        commands = ", ".join(
            f"`rela convert {one_line(shlex.join([str(table), '--image-root', str(folder)]))}`"
            for folder in found[:4]
        )
        where = one_line(str(table))
        raise ChoiceError(
            f"{where}: {len(found):,} folders hold images of these names; choose one: {commands}"
        )

    def file_of(self, root: Path, name: str, where: str) -> str | None:
        """The file in `root` that a name without the suffix of an image means, None if there is none.

        A name with one is not looked up. Raises DataError if several files have the name.
        """
        if is_image_name(name):
            return name
        found = self._files_of(root, name)
        if len(found) > 1:
            files = " and ".join(map(one_line, found[:3]))
            raise DataError(
                f"{where}: {one_line(name)} is {files} in {one_line(str(root))}; give it the suffix"
            )
        return found[0] if found else None

    def _files_of(self, root: Path, name: str) -> list[str]:
        """Names within `root` of the files that a name may mean."""
        if os.path.isfile(root / name):  # noqa: PTH113 (false for a name that is too long)
            return [name]
        if is_image_name(name):
            return []
        inside, slash, base = name.rpartition("/")
        return [inside + slash + file for file in self._by_stem(root / inside).get(base, [])]

    def _by_stem(self, folder: Path) -> dict[str, list[str]]:
        """Name without its suffix → the images in a folder; empty if it cannot be read."""
        if folder not in self._listed:
            found = self._listed[folder] = defaultdict(list)
            with contextlib.suppress(RelaError):
                for entry in sorted_entries(folder):
                    if is_image_name(entry.name) and not is_system_name(entry.name):
                        found[entry.name.rpartition(".")[0]].append(entry.name)
        return self._listed[folder]


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
