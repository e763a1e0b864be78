"""The result of every kind of source: splits of samples, one class list, and where the images are."""

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rela.errors import one_line
from rela.pipeline.files import regular_file
from rela.sources.image_file import MAX_FILE_BYTES, BadImageError, read_image_file
from rela.sources.splits.names import alike

Content = bytes | NDArray[np.uint8]  # an image file, or RGB pixels [height, width, 3]
_SHOWN_GROUPS = 3
ListingProgress = Callable[[int, int], None]  # (bytes read since the last call, total bytes)


class Place(Protocol):
    """The location of an image without its own file; pickled for the worker that reads it."""

    def read(self) -> Content:
        """The image; raises BadImageError with the reason if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixels in memory: uint8 [height, width, 3] of RGB, or [height, width] of gray."""

    pixels: NDArray[np.uint8]

    def read(self) -> NDArray[np.uint8]:
        """The pixels as RGB."""
        if self.pixels.ndim == 3:
            return self.pixels
        return np.repeat(self.pixels[:, :, None], 3, axis=2)


@dataclass(frozen=True, slots=True)
class Held:
    """The bytes of an image file, in memory."""

    content: bytes

    def read(self) -> bytes:
        """The bytes."""
        return self.content


@dataclass(frozen=True, slots=True)
class FileRange:
    """`size` bytes of the file `path` from `offset`, such as a member of an archive."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes; raises BadImageError if they cannot be read or the file ends before them."""
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
class Unusable:
    """An image that the source lists but does not contain."""

    reason: str

    def read(self) -> bytes:
        """Always raises BadImageError, with the reason."""
        raise BadImageError(self.reason)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image: its name within the source, and its class number (-1: unlabelled).

    Without a `place` the name is the path of its file, relative to the source's root.
    """

    path: str
    label: int
    place: Place | None = field(default=None, compare=False, repr=False)

    def read(self, root: Path) -> Content:
        """Its bytes or pixels; raises BadImageError with the reason if it cannot be read."""
        return read_image_file(root / self.path) if self.place is None else self.place.read()

    def sha256(self, root: Path) -> str:
        """Of its content; empty if it cannot be read."""
        known = getattr(
            self.place, "sha256", None
        )  # of a place that does not hold the source's bytes
        if isinstance(known, str):
            return known
        try:
            return content_sha256(self.read(root))
        except BadImageError:
            return ""


def content_sha256(content: Content) -> str:
    """64 hex digits over a file's bytes, or over pixels row by row."""
    data = content if isinstance(content, bytes) else content.tobytes()
    return hashlib.sha256(data).hexdigest()


def rank(seed: int, sample: Sample) -> bytes:
    """Its place in a random order: a hash of (seed, name), so that other images do not matter."""
    return hashlib.sha256(f"{seed}\0{sample.path}".encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True)
class SourceOptions:
    """Choices about a source, for the kinds whose `OPTIONS` name them.

    - `image_column`, `label_column`: of tables with several candidates;
    - `image_root`: the folder of the paths in a CSV (default: that of the CSV);
    - `image_field`: which of several images with one key in WebDataset shards;
    - `layout`: `classes` or `splits`, where names of folders can mean both;
    - `split`: the only one that is read, as train.
    """

    image_column: str | None = None
    label_column: str | None = None
    image_root: Path | None = None
    image_field: str | None = None
    layout: str | None = None
    split: str | None = None


def split_remedy(name: str) -> str:
    """The options that make a data set of a split that is not used."""
    return f"--split {one_line(shlex.quote(name.rstrip('/')))} and another --name make a data set of it"


class SourceKind(Protocol):
    """The interface of a module in `rela.sources.KINDS`.

    - `WHAT`: the kind in a noun phrase, for messages;
    - `SUFFIXES`: its file suffixes, lower case; they are removed in the names of data sets;
    - `OPTIONS`: the fields of SourceOptions that apply to it.
    """

    WHAT: str
    SUFFIXES: tuple[str, ...]
    OPTIONS: tuple[str, ...]

    def recognises(self, path: Path) -> bool:
        """Whether `path` is of this kind, from names and the first bytes."""

    def read(
        self, path: Path, options: SourceOptions, on_progress: ListingProgress
    ) -> "ImageSource":
        """List its images; calls `on_progress` if it reads files from end to end."""


@dataclass(frozen=True)
class ImageSource:
    """The content of a source: splits in a fixed order, one class list for all of them.

    - `val_name`: the source's own name of its validation split;
    - `stray_files`, `empty_classes`, `ignored_splits`: names of what was found but not used;
    - `notes`: what else the user should know, a line each;
    - `num_skipped`: hidden files and folders, and those of systems, by name;
    - `val_fraction`: the share of train that was held out as val, see rela.sources.splits.held_out;
    - `url`: of shards in a store, where no file is below `root`.
    """

    root: Path
    class_names: list[str]
    splits: dict[str, list[Sample]]
    val_name: str = ""
    stray_files: list[str] = field(default_factory=list)
    empty_classes: list[str] = field(default_factory=list)
    ignored_splits: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_skipped: dict[str, int] = field(default_factory=dict)
    val_fraction: float = 0.0
    url: str = ""

    @property
    def where(self) -> str:
        """What was read, for messages."""
        return one_line(self.url or str(self.root))

    @property
    def labelled(self) -> bool:
        """False for images without classes."""
        return bool(self.class_names)

    def with_alike_classes_named(self) -> "ImageSource":
        """This source; with a note on classes whose names look the same to people."""
        groups = alike(self.class_names)
        if not groups:
            return self
        shown = "; ".join(", ".join(map(repr, group)) for group in groups[:_SHOWN_GROUPS])
        note = f"classes that differ in case, spaces or encoding only stay apart: {one_line(shown)}"
        return replace(self, notes=[*self.notes, note])

    def without_unlabelled_val(self) -> "ImageSource":
        """This source; without val, which a note says, if only train has labels."""
        val = self.splits.get("val", [])
        if not (self.labelled and val and val[0].label < 0):
            return self
        note = (
            f"left out the split {one_line(self.val_name)}: its {len(val):,} images have no labels, and "
            f"those of train have; {split_remedy(self.val_name)}"
        )
        splits = {"train": self.splits["train"]}
        return replace(self, splits=splits, val_name="", notes=[*self.notes, note])
