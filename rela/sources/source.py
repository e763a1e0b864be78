"""What every kind of source comes to: splits of samples, one class list, and where each image lies."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rela.errors import DataError
from rela.pipeline.files import regular_file
from rela.sources.image_file import MAX_FILE_BYTES, BadImageError, read_image_file


@dataclass(frozen=True, slots=True)
class FileRange:
    """`size` bytes of the file `path` from `offset`: a member of an archive, opened by who needs it."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes; a file that ends before them has been cut off."""
        if self.size > MAX_FILE_BYTES:
            raise BadImageError(f"too large: {self.size:,} bytes, at most {MAX_FILE_BYTES:,}")
        try:
            with open(self.path, "rb", opener=regular_file) as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror}") from error
        if len(content) < self.size:
            raise BadImageError("cut off: its archive ends before it does")
        return content


@dataclass(frozen=True, slots=True)
class Pixels:
    """RGB pixels that are in memory already: uint8 [height, width, 3]."""

    pixels: NDArray[np.uint8]

    def read(self) -> NDArray[np.uint8]:
        """The pixels."""
        return self.pixels


@dataclass(frozen=True, slots=True)
class Held:
    """The bytes of an image file that are in memory already."""

    content: bytes

    def read(self) -> bytes:
        """The bytes."""
        return self.content


@dataclass(frozen=True, slots=True)
class Unusable:
    """An image that is named and not there."""

    reason: str

    def read(self) -> bytes:
        """Always raises BadImageError, with the reason."""
        raise BadImageError(self.reason)


Content = bytes | NDArray[np.uint8]  # an image file, or RGB pixels [height, width, 3]


class Place(Protocol):
    """Where an image lies that is no file of its own. It is pickled for the worker that reads it."""

    def read(self) -> Content:
        """The image; raises BadImageError with the reason why not."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image: its name within the source, and its class number (-1: unlabelled).

    Without a `place` the name is the path of its file, relative to the source's root.
    """

    path: str
    label: int
    place: Place | None = field(default=None, compare=False, repr=False)

    def read(self, root: Path) -> Content:
        """Its bytes or pixels; raises BadImageError with the reason why not."""
        return read_image_file(root / self.path) if self.place is None else self.place.read()


def content_sha256(content: Content) -> str:
    """64 hex digits over a file's bytes, or over pixels row by row."""
    data = content if isinstance(content, bytes) else content.tobytes()
    return hashlib.sha256(data).hexdigest()


VAL_NAMES = ("val", "valid", "validation", "test")

Listed = Callable[[int, int], None]  # hears of bytes more that were read, of how many in all


def unheard(more: int, in_all: int) -> None:
    """A Listed for nobody."""


def num_bytes_of(files: Iterable[Path]) -> int:
    """Of those that are there; that one is not, reading it will tell."""
    found = 0
    for file in files:
        with suppress(OSError):
            found += file.stat().st_size
    return found


@dataclass(frozen=True)
class SourceOptions:
    """What can be said about a source that does not speak for itself.

    - `image_column`, `label_column`: of tables, where several could be meant;
    - `image_root`: the folder in which the paths of a CSV lie; its own without one.
    """

    image_column: str | None = None
    label_column: str | None = None
    image_root: Path | None = None


@dataclass(frozen=True)
class ImageSource:
    """What a source holds: splits in a fixed order, one class list for all of them.

    - `val_name`: what the source calls its validation split;
    - `stray_files`, `empty_classes`, `ignored_splits`: what is there and not used, by name.
    """

    root: Path
    class_names: list[str]
    splits: dict[str, list[Sample]]
    val_name: str = ""
    stray_files: list[str] = field(default_factory=list)
    empty_classes: list[str] = field(default_factory=list)
    ignored_splits: list[str] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        """False for images without classes."""
        return bool(self.class_names)

    def with_val(self, fraction: float, seed: int) -> "ImageSource":
        """The same with a validation split cut out of each class of train, and no empty split.

        Which images go is decided by a hash of (seed, name). Raises DataError where there is a
        validation split already.
        """
        splits = self.splits
        if fraction:
            if "val" in splits:
                raise DataError(
                    f"{self.root} brings its own validation split ({self.val_name}); leave "
                    "--val-fraction out"
                )
            splits = _cut_val(splits["train"], fraction, seed)
            if not splits["val"]:
                raise DataError(
                    f"--val-fraction {fraction:g} of {self.root} is less than one image of any class (the "
                    f"largest has {_largest_class(splits['train'])}, and one stays in train); give a larger "
                    "one, or more images"
                )
        return replace(self, splits={split: found for split, found in splits.items() if found})


def _cut_val(samples: list[Sample], fraction: float, seed: int) -> dict[str, list[Sample]]:
    """Move ⌊fraction·n + ½⌋ images of each class to val, but leave every class one in train."""

    def rank(sample: Sample) -> bytes:
        return hashlib.sha256(f"{seed}\0{sample.path}".encode("utf-8", "surrogateescape")).digest()

    members: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        members[sample.label].append(sample)
    chosen: set[Sample] = set()
    for found in members.values():
        count = min(int(fraction * len(found) + 0.5), len(found) - 1)
        chosen.update(sorted(found, key=rank)[:count])
    return {
        "train": [sample for sample in samples if sample not in chosen],
        "val": [sample for sample in samples if sample in chosen],
    }


def _largest_class(samples: list[Sample]) -> int:
    return max(Counter(sample.label for sample in samples).values(), default=0)


def quoted_classes(names: list[str], limit: int = 8) -> str:
    """Class names for messages: `classes 'a', 'b' and 3 more`."""
    shown = ", ".join(repr(name) for name in names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"class{'es' if len(names) > 1 else ''} {shown}{more}"
