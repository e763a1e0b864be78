"""MNIST, Fashion-MNIST, KMNIST and EMNIST as published: IDX files of images and labels, also gzipped.

http://yann.lecun.com/exdb/mnist describes the format. `t10k` (or `test`) becomes val. Classes are the numbers
in the files. Images are named `train-images-idx3-ubyte/0` and so on, in the order of the files.
"""

import gzip
import math
import re
import shlex
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from rela.errors import ChoiceError, DataError, UnavailableError, one_line
from rela.pipeline.files import regular_file
from rela.sources.labels import Labelled, choose_splits, find_classes
from rela.sources.source import ImageSource, ListingProgress, Pixels, SourceOptions
from rela.sources.splits.tree import is_folder, is_system_name, sorted_entries

WHAT = "IDX files (MNIST, Fashion-MNIST, KMNIST, EMNIST)"
_NAME = re.compile(
    r"(?P<edition>(?:.*[-_.])?)(?P<split>train|t10k|test|val|extra)[-_.]?"
    r"(?P<what>images|labels)[-_.]idx[123]-(?:ubyte|int)(?:\.gz)?",
    re.IGNORECASE,
)
SUFFIXES = tuple(
    f"-images{dot}idx3-ubyte{gz}" for dot in "-." for gz in (".gz", "")
)  # of the file that names an edition
OPTIONS = ("split",)
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}
_MOST_BYTES = 1 << 30  # EMNIST's largest has 547 MB
_DEEPEST, _MOST_FOLDERS = 3, 4
_TRANSPOSED = "EMNIST's files hold every image transposed; they are kept so, as other readers do"
Files = dict[str, dict[str, Path]]  # split → "images" or "labels" → file


def recognises(path: Path) -> bool:
    """Whether `path` is an IDX file of images, or a folder that holds one, also in `raw/`."""
    return bool(_editions(path))


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """All splits of one edition, in memory.

    Raises ChoiceError if a folder has several, DataError for a damaged file.
    """
    editions = _editions(path)
    if not editions:
        raise DataError(f"{one_line(str(path))}: found no file such as train-images-idx3-ubyte")
    if len(editions) > 1:
        raise ChoiceError(_choices(path, editions))
    (files,) = editions.values()
    by_split = {"test" if split == "t10k" else split: pair for split, pair in files.items()}
    chosen, ignored = choose_splits(one_line(str(path)), by_split, options.split)
    splits = {split: _split(by_split[name]) for split, name in chosen.items()}
    class_names, samples = find_classes(path, splits)
    val = by_split[chosen["val"]]["images"].name if "val" in chosen else ""
    notes = [_TRANSPOSED] if next(iter(editions)).startswith("emnist") else []
    return ImageSource(path, class_names, samples, val, ignored_splits=ignored, notes=notes)


def _editions(path: Path) -> dict[str, Files]:
    """Edition (`emnist-letters-`, or nothing) → its files; of a file, its own only."""
    if path.is_dir():
        return _in_folder(path)
    found = _NAME.fullmatch(path.name)
    if found is None or not path.is_file() or found["what"].lower() != "images":
        return {}
    edition = found["edition"].lower()
    return {edition: _in_folder(path.parent, 0)[edition]}


def _in_folder(folder: Path, deepest: int = _DEEPEST) -> dict[str, Files]:
    """Those in it, or in the first of a few folders below."""
    entries = sorted_entries(folder)
    editions: dict[str, Files] = defaultdict(lambda: defaultdict(dict))
    for entry in entries:
        found = _NAME.fullmatch(entry.name)
        if found is not None and entry.is_file():
            files = editions[found["edition"].lower()][found["split"].lower()]
            # the plain file comes before its .gz
            files.setdefault(found["what"].lower(), Path(entry.path))
    with_images = {
        edition: {split: pair for split, pair in files.items() if "images" in pair}
        for edition, files in editions.items()
    }
    editions = {edition: files for edition, files in with_images.items() if files}
    folders = [e for e in entries if not is_system_name(e.name) and is_folder(e)]
    if editions or not deepest or len(folders) > _MOST_FOLDERS:
        return editions
    below = (_in_folder(Path(entry.path), deepest - 1) for entry in folders)
    return next(filter(None, below), {})


def _choices(path: Path, editions: dict[str, Files]) -> str:
    """The error for several editions, with a command for each."""
    commands = []
    for files in editions.values():
        train = files.get("train") or next(iter(files.values()))
        commands.append(f"`rela convert {one_line(shlex.quote(str(train['images'])))}`")
    return (
        f"{one_line(str(path))} holds {len(editions)} data sets; choose one: {', '.join(commands)}"
    )


def _split(files: dict[str, Path]) -> list[Labelled]:
    where = one_line(str(files["images"]))
    images = _read(files["images"])
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise DataError(
            f"{where} holds {images.dtype} of shape {list(images.shape)}, and no images"
        )
    labels: Sequence[int | None] = [None] * len(images)
    if "labels" in files:
        numbers = _read(files["labels"])
        if len(numbers) != len(images) or numbers.size < len(images):
            raise DataError(
                f"{one_line(str(files['labels']))} holds {len(numbers):,} labels for {len(images):,} images"
            )
        labels = [int(row.flat[0]) for row in numbers]  # of QMNIST's columns the first
    name = files["images"].name.removesuffix(".gz")
    return [
        Labelled(f"{name}/{row}", label, Pixels(image))
        for row, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def _read(path: Path) -> NDArray[Any]:
    """The array in an IDX file; raises DataError unless the file is as long as its header says."""
    where = one_line(str(path))
    try:
        with open(path, "rb", opener=regular_file) as raw:
            is_gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file = cast(IO[bytes], gzip.GzipFile(fileobj=raw) if is_gzipped else raw)
            magic = file.read(4)
            if (
                len(magic) < 4
                or magic[:2] != b"\0\0"
                or magic[2] not in _TYPES
                or not 1 <= magic[3] <= 4
            ):
                raise DataError(f"{where} is not an IDX file")
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise DataError(f"{where} is damaged: it ends in its header; download it again")
            shape = np.frombuffer(header, ">u4").tolist()
            kind = np.dtype(_TYPES[magic[2]])
            num_bytes = math.prod(shape) * kind.itemsize  # Python's integers: no overflow
            if num_bytes > _MOST_BYTES:
                raise DataError(
                    f"{where} claims {num_bytes:,} bytes, at most {_MOST_BYTES:,} are read"
                )
            content = file.read(num_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UnavailableError(f"{where} cannot be read: {error.strerror}") from error
        raise DataError(f"{where} is damaged: {one_line(str(error))}") from error
    if len(content) != num_bytes:
        raise DataError(
            f"{where} is damaged: its header says {num_bytes:,} bytes, found "
            f"{'more' if len(content) > num_bytes else f'{len(content):,}'}; download it again"
        )
    return np.frombuffer(content, kind).reshape(shape)
