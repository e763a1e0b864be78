"""Folders and files of a source, on a disk or in an archive, in one form, without opening an image.

Hidden entries, and those that systems leave among images (Synology's @eaDir, Windows' Thumbs.db, ...), are
skipped and counted.
"""

import functools
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

from rela.errors import ChoiceError, DataError, UnavailableError, one_line
from rela.pipeline.files import regular_file
from rela.sources.image_file import LATER_SUFFIXES, NOT_PICTURES

_MARK = ".rela-output"
_OF_WORKSPACES = ("", "datasets", "representations", "targets", "runs", "priors", "evaluations")
_SYSTEM_NAMES = frozenset(
    [
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp",  # NAS
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin",  # Windows
        "system volume information", "wpsettings.dat", "indexervolumeguid",
        "__macosx", "icon\r", "network trash folder", "temporary items",  # macOS
        "lost+found", "__pycache__",
    ]
)  # fmt: skip


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes of every raster format that Pillow opens, also by a plug-in or when newer."""
    from PIL import Image

    formats = Image.registered_extensions()
    opened = (s for s, f in formats.items() if f in Image.OPEN and f not in NOT_PICTURES)
    return LATER_SUFFIXES.union(opened)


def is_image_name(name: str) -> bool:
    """Whether it has the suffix of an image format."""
    return os.path.splitext(name)[1].lower() in image_suffixes()  # noqa: PTH122


def is_system_name(name: str) -> bool:
    """Whether a file or folder of this name is hidden or a system's own, and never an image or a class."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder or a link to one; true for paths too long to stat, false for a link loop."""
    return entry.is_dir(follow_symlinks=False) or os.path.isdir(entry.path)  # noqa: PTH112


def sorted_entries(folder: Path) -> "list[os.DirEntry[str]]":
    """What is in a folder, by name; raises UnavailableError if it cannot be read."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(error) from error


def make_output_folder(folder: Path) -> None:
    """Create `folder` with a mark; an existing folder gets none, because it may hold images."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()


def is_output_folder(folder: Path) -> bool:
    """Whether it was made by `make_output_folder`."""
    # unlike Path.is_file, false for a folder that cannot be read
    return os.path.isfile(folder / _MARK) or is_workspace(folder)  # noqa: PTH113


def is_workspace(folder: Path) -> bool:
    """Whether rela keeps data sets in this folder."""
    # a stat for most folders; pathlib is several times slower
    return os.path.isdir(folder / "datasets") and any(  # noqa: PTH112
        folder.glob("datasets/*/manifest.json")
    )


def refuse_workspace(path: Path) -> None:
    """Raise ChoiceError, with the name of the data set, for what rela itself has made."""
    whole = Path(os.path.realpath(path))  # unlike resolve, also of a link to itself
    for root in (whole, *whole.parents):
        kind, *name = (*whole.relative_to(root).parts, "")
        if kind in _OF_WORKSPACES and is_workspace(root):
            is_dataset = kind == "datasets" and name[0]
            which = (
                f"the data set is called {name[0]}" if is_dataset else "`rela cache ls` lists it"
            )
            raise ChoiceError(
                f"{one_line(str(path))} is in the workspace {one_line(str(root))}, which holds what rela "
                f"made of images; {which}"
            )


class _Files(Protocol):
    """Where a tree lies; `path` is that of a folder or file in it, "" the tree itself."""

    skipped: Counter[str]  # hidden and system entries of the folders that were read, by name
    is_on_disk: bool

    def entries(self, path: str) -> tuple[list[str], list[str]]:
        """Names of folders and of files, sorted."""

    def identity(self, path: str) -> object:
        """Equal for two paths to one folder."""

    def open(self, path: str) -> BinaryIO:
        """One file; raises UnavailableError if it cannot be read."""


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder: `path` within the source, "" for its root; read when it is first looked at."""

    path: str
    tree: _Files

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @functools.cached_property
    def _entries(self) -> tuple["list[Folder]", list[str]]:
        folders, files = self.tree.entries(self.path)
        return [Folder(self.within(name), self.tree) for name in folders], files

    @property
    def folders(self) -> "list[Folder]":
        """The folders in it, by name."""
        return self._entries[0]

    @property
    def files(self) -> list[str]:
        """The names of the files in it, sorted."""
        return self._entries[1]

    @functools.cached_property
    def own_images(self) -> list[str]:
        """The names of the images directly in it."""
        return [name for name in self.files if is_image_name(name)]

    @functools.cached_property
    def holds_images(self) -> bool:
        """Whether there are images at any depth; ends at the first."""
        return any(folder.own_images for folder in self.walk())

    @functools.cached_property
    def holding(self) -> "list[Folder]":
        """Its folders that hold images at any depth."""
        return [folder for folder in self.folders if folder.holds_images]

    def within(self, name: str) -> str:
        """The path of one of its files within the source."""
        return f"{self.path}/{name}" if self.path else name

    def open_text(self, name: str) -> TextIO:
        """One of its files, as UTF-8 text; raises UnavailableError if it cannot be read."""
        file = self.tree.open(self.within(name))
        return io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")

    def walk(self) -> "Iterator[Folder]":
        """This folder and those below it, each once, although links may lead to it several times."""
        parts = self.path.split("/") if self.path else []
        above = ["/".join(parts[:count]) for count in range(len(parts))]
        seen = {self.tree.identity(path) for path in above}  # a link upwards is a loop
        waiting = [self]  # no recursion: folders may be nested more than a thousand deep
        while waiting:
            folder = waiting.pop()
            identity = self.tree.identity(folder.path)
            if identity not in seen:
                seen.add(identity)
                yield folder
                waiting += reversed(folder.folders)

    def images(self) -> list[str]:
        """Paths of the images at any depth, sorted."""
        return sorted(f.within(name) for f in self.walk() for name in f.own_images)

    def others(self) -> list[str]:
        """Paths of the files at any depth that are not images."""
        return [f.within(n) for f in self.walk() for n in f.files if not is_image_name(n)]


def tree_of_folder(root: Path) -> Folder:
    """A folder of a disk; links to folders are followed, folders written by rela are left out."""
    return Folder("", _OnDisk(root))


def tree_of_names(names: Iterable[str], read: Callable[[str], bytes]) -> Folder:
    """Files with these names, none of which leads out; `read` gives the bytes of one."""
    return Folder("", _InArchive(names, read))


class _OnDisk:
    is_on_disk = True

    def __init__(self, root: Path) -> None:
        self.root, self.skipped = root, Counter[str]()
        self._identities: dict[str, tuple[int, int]] = {}
        self._above = {_identity(parent) for parent in root.absolute().parents}

    def entries(self, path: str) -> tuple[list[str], list[str]]:
        folders, files = [], []
        for entry in sorted_entries(self.root / path):
            if is_system_name(entry.name):
                self.skipped[kind_of_system(entry.name)] += 1
            elif not is_folder(entry):
                files.append(entry.name)
            elif (
                not is_output_folder(Path(entry.path)) and _identity(entry.path) not in self._above
            ):
                folders.append(entry.name)
        return folders, files

    def identity(self, path: str) -> tuple[int, int]:
        if path not in self._identities:
            self._identities[path] = _identity(self.root / path)
        return self._identities[path]

    def open(self, path: str) -> BinaryIO:
        try:
            return open(self.root / path, "rb", opener=regular_file)
        except OSError as error:
            raise _unreadable(error) from error


class _InArchive:
    is_on_disk = False

    def __init__(self, names: Iterable[str], read: Callable[[str], bytes]) -> None:
        self.skipped, self._read = Counter[str](), read
        self._folders: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}
        for name in names:
            parts = name.split("/")
            system = next(filter(is_system_name, parts), None)
            if system is not None:
                self.skipped[kind_of_system(system)] += 1
                continue
            path = ""
            for part in parts[:-1]:
                self._folders[path][0].add(part)
                path = f"{path}/{part}" if path else part
                self._folders.setdefault(path, (set(), []))
            self._folders[path][1].append(parts[-1])

    def entries(self, path: str) -> tuple[list[str], list[str]]:
        folders, files = self._folders[path]
        return sorted(folders), sorted(files)

    def identity(self, path: str) -> object:
        return path

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(self._read(path))


def kind_of_system(name: str) -> str:
    """The name; one for all of macOS's `._NAME`, which lie beside every file of some disks."""
    return "._*" if name.startswith("._") else name


def _identity(folder: str | Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise _unreadable(error) from error
    return status.st_dev, status.st_ino


def _unreadable(error: OSError) -> UnavailableError:
    return UnavailableError(f"{one_line(str(error.filename))} cannot be read: {error.strerror}")


def require_folder(root: Path) -> None:
    """Raise DataError unless `root` is a folder."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(f"{one_line(str(root))}: found {found}, expected a folder of class folders")
