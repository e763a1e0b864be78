"""What is said of the folders of a source: their paths, and the commands that convert them."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rela.errors import one_line
from rela.sources.splits.names import is_synset_tar
from rela.sources.splits.other_files import counted, kind_of, remedies
from rela.sources.splits.tree import Folder

_SHOWN = 4
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Words:
    """`where`: the path of the source that was given; `is_on_disk`: whether it is no archive."""

    where: Path
    is_on_disk: bool

    def path(self, folder: Folder) -> str:
        """The path of a folder."""
        return one_line(str(self.where / folder.path))

    def command(self, path: str, *options: str) -> str:
        """The command that converts a folder or file within the source."""
        words = ["rela", "convert", str(self.where / path), *options]
        command = f"`{one_line(shlex.join(words))}`"
        return command if self.is_on_disk or not path else f"extract the archive, then {command}"

    def only(self, folder: Folder) -> str:
        """The reading that one folder is all that is meant."""
        return f"{one_line(folder.name)}/ by itself: {self.command(folder.path)}"

    def left_out(self, folder: Folder, why: str, paths: Sequence[str], is_split: bool) -> str:
        """A note on images that are not used, with a command for them.

        `is_split`: whether --split may name the folder, which in an archive has no path to convert.
        """
        images = f"{len(paths):,} image{'s' if len(paths) != 1 else ''}"
        plain = f"{self.where.resolve().name}-{folder.path}"
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.") or "rest"
        command = self.command(folder.path, "--name", name)
        if not self.is_on_disk:
            command = self.command("", "--split", folder.name, "--name", name) if is_split else ""
        remedy = f"; {command} makes a data set of them" if command else ""
        return f"left out {images} of {self.path(folder)}/: {why}{remedy}"

    def no_images(self, folder: Folder) -> str:
        """A folder holds none: what it holds, what was expected, and what to do."""
        others = folder.others()
        found = f", only {counted(Counter(map(kind_of, others)))}" if others else ""
        archives = [name for name in folder.files if name.lower().endswith(_ARCHIVES)]
        advice = remedies(others)
        if any(map(is_synset_tar, folder.files)) and self.is_on_disk:
            advice.append(f"of ImageNet's tars: {self.command(folder.path)}")
        elif archives and self.is_on_disk:
            advice.append(f"of an archive there: {self.command(folder.within(archives[0]))}")
        expected = "expected files such as CLASS/image.jpg, in any format that Pillow opens"
        return "; ".join([f"{self.path(folder)} holds no images{found}", expected, *advice])


def names_of(folders: Sequence[Folder]) -> str:
    """`a/, b/ and 3 more`."""
    shown = ", ".join(f"{one_line(folder.name)}/" for folder in folders[:_SHOWN])
    more = len(folders) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
