"""ImageNet as it is downloaded: `n01440764.tar`, ..., a tar for each class, or the tar that holds these.

Beside them, in one folder: the tar of validation images, and the development kit, which has their labels.
The tars are read in place, as one tree of names: `train/n01440764/NAME`, `val/NAME`.
"""

import contextlib
import itertools
import re
from pathlib import Path
from tarfile import TarInfo
from typing import IO, cast

from rela.errors import DataError, UnavailableError
from rela.sources.archives.image_archive import Members, source_of, tar_members
from rela.sources.archives.tar_archives import is_plain_file, open_tar_file, walk_tar
from rela.sources.file_patterns import total_bytes, typical_suffix
from rela.sources.source import FileRange, ImageSource, ListingProgress, SourceOptions
from rela.sources.splits.names import is_synset_tar
from rela.sources.splits.tree import is_folder, is_system_name, sorted_entries

WHAT = "ImageNet as downloaded (tars named by synsets, or the tar of these)"
SUFFIXES = (".tar",)
OPTIONS = ("split",)
_VAL = re.compile(r"ILSVRC20[0-9]{2}_img_val[A-Za-z0-9_]*\.tar")
_KIT = re.compile(r"ILSVRC20[0-9]{2}_devkit[A-Za-z0-9_]*\.tar(\.gz)?")


def recognises(path: Path) -> bool:
    """Whether `path` is a tar of tars named by synsets, or a folder with one, or with those tars."""
    if not path.is_dir():
        return _is_whole(path)
    if typical_suffix(path) != ".tar":  # also where there are images beside tars
        return False
    return any(is_synset_tar(file.name) or _is_whole(file) for file in _tars(path))


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The images of all classes, and those for validation if their tar is there.

    Raises DataError if a tar is damaged or cut off.
    """
    files = _tars(path) if path.is_dir() else [path]
    num_bytes = total_bytes(files)

    def members() -> Members:
        for file in files:
            yield from _members_of(file, "train" if file.parent == path else file.parent.name)
            on_progress(total_bytes([file]), num_bytes)

    return source_of(path, members(), options)


def _tars(folder: Path) -> list[Path]:
    """Those in a folder and in its folders, such as train/ and val/."""
    with contextlib.suppress(DataError, UnavailableError):  # an error when the folder is listed
        entries = [entry for entry in sorted_entries(folder) if not is_system_name(entry.name)]
        inside = (sorted_entries(Path(entry.path)) for entry in entries if is_folder(entry))
        found = (Path(entry.path) for entry in itertools.chain(entries, *inside))
        return [p for p in found if p.name.endswith((".tar", ".tar.gz")) and p.is_file()]
    return []


def _members_of(file: Path, split: str) -> Members:
    if is_synset_tar(file.name):
        return _renamed(tar_members(file), f"{split}/{file.stem}/")
    if _VAL.fullmatch(file.name):
        return _renamed(tar_members(file), "val/")
    if _KIT.fullmatch(file.name):
        return tar_members(file)
    return _of_whole(file) if _is_whole(file) else [(file.name, FileRange(str(file), 0, 0))]


def _renamed(members: Members, before: str) -> Members:
    return ((before + name.removeprefix("./"), place) for name, place in members)


def _is_whole(file: Path) -> bool:
    """Whether it is a tar whose first file is the tar of a class."""
    if not file.name.endswith(".tar") or not file.is_file():
        return False
    try:
        with open_tar_file(file) as opened:
            first = next((m for m in walk_tar(opened, file) if m.isreg()), None)
    except DataError:
        return False
    return first is not None and is_synset_tar(_last_part(first))


def _of_whole(file: Path) -> Members:
    """The files in the tars in a tar."""
    with open_tar_file(file) as opened:
        for tar in walk_tar(opened, file):
            name = _last_part(tar)
            if tar.isdir():
                continue
            if not is_plain_file(tar) or not is_synset_tar(name):
                yield name, FileRange(str(file), tar.offset_data, tar.size)
                continue
            part = cast(IO[bytes], _Part(opened, tar.offset_data, tar.size))
            for member in walk_tar(part, file / name):
                if is_plain_file(member):
                    at = tar.offset_data + member.offset_data
                    inside = f"train/{name.removesuffix('.tar')}/{member.name}"
                    yield inside, FileRange(str(file), at, member.size)


def _last_part(member: TarInfo) -> str:
    return member.name.rpartition("/")[2]


class _Part:
    """A part of a file, as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def seek(self, offset: int) -> int:
        self._at = min(offset, self._size)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        self._file.seek(self._start + self._at)
        found = self._file.read(max(0, min(size, self._size - self._at)))
        self._at += len(found)
        return found
