"""CIFAR-10 and CIFAR-100 as published by their authors: archives or their folders, pickled or binary.

https://www.cs.toronto.edu/~kriz/cifar.html. The training batches become train, the test batch val;
CIFAR-100's classes are the fine ones. Images keep the order of the batches and are named
`data_batch_1/0` and so on.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tarfile import TarInfo
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rela.errors import DataError, UnavailableError, one_line
from rela.sources.archives.tar_archives import is_plain_file, open_tar_file, walk_tar
from rela.sources.image_file import BadImageError, read_image_file
from rela.sources.labels import Labelled, check_classes
from rela.sources.restricted_pickle import read_plain_pickle
from rela.sources.source import ImageSource, ListingProgress, Pixels, SourceOptions

WHAT = "CIFAR-10 or CIFAR-100 (the archive or its folder)"
SUFFIXES = (".tar.gz", ".tgz", ".tar")
OPTIONS: tuple[str, ...] = ()
_SIDE = 32  # pixels
_IMAGE_BYTES = 3 * _SIDE * _SIDE
_LARGEST_FILE_BYTES = 1 << 28  # CIFAR-100's train has 155 MB
_MOST_MEMBERS = 20
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


@dataclass(frozen=True)
class _Edition:
    """One published form of one of the two data sets.

    - `label_names`, `labels`: keys in pickles of the class list and of the class numbers;
    - `label_bytes`: bytes before each image in binary files, of which the last is the class.
    """

    folder: str
    train: tuple[str, ...]
    test: str
    classes: str
    label_names: str = ""
    labels: str = ""
    label_bytes: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        return self.classes, *self.train, self.test


_EDITIONS = (
    _Edition(
        "cifar-10-batches-py", _BATCHES, "test_batch", "batches.meta", "label_names", "labels"
    ),
    _Edition("cifar-100-python", ("train",), "test", "meta", "fine_label_names", "fine_labels"),
    _Edition(
        "cifar-10-batches-bin", tuple(f"{batch}.bin" for batch in _BATCHES), "test_batch.bin",
        "batches.meta.txt", label_bytes=1,
    ),
    _Edition(
        "cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", label_bytes=2
    ),
)  # fmt: skip


def recognises(path: Path) -> bool:
    """Whether `path` is one of CIFAR's folders, or an archive whose first member is in one."""
    return _edition(path) is not None


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """Both splits, in memory. Raises DataError for a missing or damaged batch."""
    edition = _edition(path)
    if edition is None:
        folders = ", ".join(edition.folder for edition in _EDITIONS)
        raise DataError(
            f"{one_line(str(path))}: expected an archive or a folder of CIFAR: {folders}"
        )
    read_files = _files_of_folder if path.is_dir() else _files_of_archive
    files = read_files(path, edition)
    where = f"{one_line(str(path))}: {edition.classes}"
    class_names = _class_names(files.pop(edition.classes), edition, where)
    splits: dict[str, list[Labelled]] = {"train": [], "val": []}
    for name in (*edition.train, edition.test):
        where = f"{one_line(str(path))}: {name}"
        pixels, labels = _batch(files.pop(name), edition, where)
        splits["val" if name == edition.test else "train"] += [
            Labelled(f"{name.removesuffix('.bin')}/{row}", label, Pixels(image))
            for row, (image, label) in enumerate(zip(pixels, labels, strict=True))
        ]
    _, samples = check_classes(path, splits, class_names)
    return ImageSource(path, class_names, samples, edition.test)


def _edition(path: Path) -> _Edition | None:
    """The edition at `path`, from the names in it."""
    if path.is_dir():
        found = [e for e in _EDITIONS if all((path / n).is_file() for n in (e.classes, *e.train))]
        return found[0] if found else None
    if not (path.is_file() and path.name.lower().endswith(SUFFIXES)):
        return None
    with open_tar_file(path) as file:
        try:
            first = next(walk_tar(file, path), None)
        except DataError:  # another kind of source may read it
            return None
    folder = PurePosixPath(first.name).parts[:1] if first is not None else ()
    return next((e for e in _EDITIONS if folder == (e.folder,)), None)


def _files_of_folder(folder: Path, edition: _Edition) -> dict[str, bytes]:
    contents = {}
    for name in edition.files:
        try:
            contents[name] = read_image_file(folder / name)
        except BadImageError as error:
            raise UnavailableError(f"{one_line(str(folder / name))}: {error}") from error
    return contents


def _files_of_archive(path: Path, edition: _Edition) -> dict[str, bytes]:
    """Name → content of the files of an edition; other members are skipped."""
    wanted = {f"{edition.folder}/{name}": name for name in edition.files}
    contents: dict[str, bytes] = {}
    with open_tar_file(path) as file:
        for number, member in enumerate(walk_tar(file, path)):
            if number >= _MOST_MEMBERS or member.size > _LARGEST_FILE_BYTES:
                raise DataError(
                    f"{one_line(str(path))} claims to hold more than CIFAR does; download it again"
                )
            if member.name in wanted and is_plain_file(member):
                contents[wanted[member.name]] = _read_member(file, path, member)
    missing = [name for name in edition.files if name not in contents]
    if missing:
        raise DataError(f"{one_line(str(path))} lacks {', '.join(missing)}; download it again")
    return contents


def _read_member(file: IO[bytes], path: Path, member: TarInfo) -> bytes:
    try:
        file.seek(member.offset_data)
        return file.read(member.size)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{one_line(str(path))} is damaged: {one_line(str(error))}") from error


def _class_names(content: bytes, edition: _Edition, where: str) -> list[str]:
    if edition.label_names:
        found = read_plain_pickle(content, where)
        names = found.get(edition.label_names) if isinstance(found, dict) else None
    else:
        names = content.decode("utf-8", "replace").split()
    if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
        raise DataError(f"{where} holds no class names")
    return names


def _batch(content: bytes, edition: _Edition, where: str) -> tuple[NDArray[np.uint8], list[int]]:
    """Pixels uint8 [N, 32, 32, 3] and N class numbers of one file."""
    data: Any
    labels: Any
    if edition.label_bytes:
        if len(content) % (edition.label_bytes + _IMAGE_BYTES):
            raise DataError(f"{where} is damaged: its size is not a whole number of images")
        rows = np.frombuffer(content, np.uint8).reshape(-1, edition.label_bytes + _IMAGE_BYTES)
        data, labels = rows[:, edition.label_bytes :], rows[:, edition.label_bytes - 1].tolist()
    else:
        found = read_plain_pickle(content, where)
        found = found if isinstance(found, dict) else {}
        data, labels = found.get("data"), found.get(edition.labels)
    if not (isinstance(data, np.ndarray) and data.ndim == 2 and data.shape[1] == _IMAGE_BYTES):
        raise DataError(f"{where} holds no images of {_IMAGE_BYTES} bytes")
    if not (
        isinstance(labels, list) and len(labels) == len(data)
        and all(type(label) is int and label >= 0 for label in labels)
    ):  # fmt: skip
        raise DataError(
            f"{where} does not hold one class number for each of its {len(data)} images"
        )
    planes = data.reshape(-1, 3, _SIDE, _SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
