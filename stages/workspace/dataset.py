"""A data set: its splits, its images and their files."""

import csv
import io
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct, field

from rela.errors import ChoiceError, DataError, one_line
from rela.pipeline.artifact import Artifact
from rela.pipeline.files import regular_file
from rela.pipeline.fingerprint import ordered_digest
from rela.pipeline.manifest import remedy
from rela.result import Result
from rela.stages.workspace.schema import Int, Timing, checked_manifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rela.data.beton.reader import Beton

INDEX_COLUMNS = ("index", "label", "path", "source_sha256", "stored_sha256")
_LARGEST_DEFAULT_SIZE = 224
_SHOWN_CLASSES = 8


def index_lines(rows: Iterable[tuple[int, int, str, str, str]]) -> Iterator[bytes]:
    """The lines of an index file: the header, then one for each row with values in its order."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    # csv does not quote carriage returns by itself, and readers would end the row there
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(INDEX_COLUMNS)
    for row in rows:
        (quoted if "\r" in row[2] else plain).writerow(row)
        yield text.getvalue().encode("utf-8", "surrogateescape")
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()  # without rows, the header


class Split(Struct, frozen=True):
    """The images of one split; `images_per_class` by class index, `images_sha256` without labels."""

    num_images: Int
    num_jpeg: Int
    num_raw: Int
    median_shorter_side_pixels: Int
    images_sha256: str
    labels_sha256: str
    images_per_class: list[Int]


class DataSetContent(Struct, frozen=True):
    """What a data set holds.

    - `class_names`: by index; `labelled`: whether images have classes;
    - `bad_images`: path and reason of every source file that was left out;
    - `sources_sha256`: digest of all source files, bad images included;
    - `bits`, `float_bits`: by which values of undeclared range were scaled (PixelRules); None without such.
    """

    class_names: list[str]
    labelled: bool
    splits: dict[str, Split]
    bad_images: list[tuple[str, str]]
    sources_sha256: str
    bits: Int | None = None
    float_bits: Int | None = None

    def __post_init__(self) -> None:
        if not {"train"} <= self.splits.keys() <= {"train", "val"}:  # names of files
            raise ValueError(f"splits: Expected train, or train and val, got {sorted(self.splits)}")


class _Provenance(Timing, frozen=True):
    command: tuple[str, ...] = ()
    source: str | None = None
    shards: str | None = None
    asked: dict[str, str] = field(default_factory=dict)


class _Manifest(Struct, frozen=True):
    content: DataSetContent
    provenance: _Provenance


@dataclass(frozen=True)
class Coverage:
    """How many of the classes of a data set its validation images cover; `missing` names the others."""

    dataset: str
    num_images: int
    num_classes: int
    of_classes: int
    missing: list[str]

    @property
    def is_whole(self) -> bool:
        """Whether there are images of every class."""
        return self.num_classes == self.of_classes

    def words(self) -> str:
        """One line; a warning if classes are missing."""
        images = (
            f"{self.num_images:,} validation image{'s' * (self.num_images != 1)} of {self.dataset}"
        )
        classes = f"{self.num_classes:,} of {self.of_classes:,} classes"
        if self.is_whole:
            return f"measured on {images}, of {classes}"
        shown = ", ".join(map(one_line, self.missing[:_SHOWN_CLASSES]))
        more = len(self.missing) - _SHOWN_CLASSES
        are = "is" if self.num_images == 1 else "are"
        return (
            f"warning: the {images} {are} of {classes}; accuracies on them say nothing about {shown}"
            + (f" and {more:,} more" if more > 0 else "")
        )


@dataclass(frozen=True, repr=False)
class DataSet(Result, Artifact):
    """An artifact with a beton and a CSV per split."""

    KIND: ClassVar[str] = "dataset"

    @cached_property
    def facts(self) -> _Manifest:
        """The manifest, checked; raises CorruptArtifactError."""
        return checked_manifest(self, _Manifest)

    @property
    def content(self) -> DataSetContent:
        """`manifest.content`, checked."""
        return self.facts.content

    @property
    def splits(self) -> dict[str, Split]:
        """`train`, and `val` if there is one."""
        return self.content.splits

    @property
    def asked(self) -> dict[str, str]:
        """What was given to convert it that its parameters do not hold, by option, and its `source`."""
        return self.facts.provenance.asked

    @property
    def command(self) -> list[str]:
        """The words of the command that converts its images again, without name and validation split."""
        skip = ["--on-bad-image", "skip"] if self.content.bad_images else []
        plain = ["rela", "convert", self.source or "SRC", *skip]
        words = list(self.facts.provenance.command) or plain
        for option in ("--name", "--val-fraction"):
            if option in words:
                at = words.index(option)
                del words[at : at + 2]
        return words

    @property
    def source(self) -> str | None:
        """The path that was converted."""
        return self.facts.provenance.source

    @property
    def spent(self) -> Timing:
        """What converting took."""
        return self.facts.provenance

    @property
    def default_image_size(self) -> int:
        """Median shorter side in pixels, at most 224."""
        return min(self.splits["train"].median_shorter_side_pixels, _LARGEST_DEFAULT_SIZE)

    def split(self, name: str) -> Split:
        """The facts of one split; raises ChoiceError if there is no such split."""
        if name not in self.splits:
            if len(self.splits) > 1:
                raise ChoiceError(f"split {name}: expected one of {', '.join(self.splits)}")
            command = shlex.join(
                [*self.command, "--val-fraction", "0.1", "--name", f"{self.name}-val"]
            )
            raise ChoiceError(
                f"data set {self.name} has no {name} split, only {', '.join(self.splits)}; convert its "
                f"images with one, `{command}`, or a folder with train/ and val/"
            )
        return self.splits[name]

    @property
    def classes_in_words(self) -> str:
        """`1 class`, `1,000 classes` or `no labels`."""
        count = len(self.content.class_names)
        return f"{count:,} class{'es' * (count != 1)}" if self.content.labelled else "no labels"

    def num_images(self, split: str | None = None) -> int:
        """Images of one split, or of all splits."""
        chosen = self.splits.values() if split is None else [self.split(split)]
        return sum(each.num_images for each in chosen)

    def coverage(self) -> Coverage | None:
        """Of its validation images; None without labels or validation images."""
        names = self.content.class_names
        if not self.content.labelled or "val" not in self.splits:
            return None
        val, missing = self.splits["val"], list[str]()
        if len(val.images_per_class) < len(names):
            there = {row["label"] for row in self.index("val")}
            missing = [name for number, name in enumerate(names) if str(number) not in there]
        covered = len(names) - len(missing)
        return Coverage(self.name, val.num_images, covered, len(names), missing)

    def images_sha256(self, split: str = "train") -> str:
        """Digest of the ordered images of a split, labels excluded."""
        return self.split(split).images_sha256

    def beton_path(self, split: str) -> Path:
        """The beton of one split; raises ChoiceError if there is no such split."""
        self.split(split)
        return self.path / f"{split}.beton"

    def index_path(self, split: str) -> Path:
        """The CSV of one split: the source file of every row of its beton."""
        return self.path / f"{split}.csv"

    def open(self, split: str = "train") -> "Beton":
        """The beton of one split; raises DataError if it is damaged or does not match the manifest."""
        from rela.data.beton.reader import open_beton

        self.require_images()
        path, expected = self.beton_path(split), self.num_images(split)
        beton = open_beton(path, len(self.content.class_names))
        if len(beton) != expected:
            raise DataError(
                f"{path} holds {len(beton)} images, its manifest says {expected}; {remedy(self.path)}"
            )
        return beton

    @property
    def has_images(self) -> bool:
        """Whether it holds its images; those of shards that were only embedded stayed in their store."""
        return "train.beton" in self.manifest.file_sha256

    def require_images(self) -> None:
        """Raise ChoiceError, with the command that makes a data set with images, if this holds none."""
        if not self.has_images:
            raise ChoiceError(
                f"data set {self.name} has the names of its images, which stayed in their shards; a data set "
                f"with images is made by `{shlex.join(self.command)}`"
            )

    def labels(self, split: str = "train") -> "NDArray[np.int64]":
        """The class numbers of a split, int64 [N]; -1 without a class."""
        import numpy as np

        if self.has_images:
            return self.open(split).labels
        return np.array([int(row["label"]) for row in self.index(split)], np.int64)

    def index(self, split: str = "train") -> list[dict[str, str]]:
        """The rows of a split's CSV: index, label, path, source_sha256, stored_sha256."""
        return list(self._index_rows(split))

    def _index_rows(self, split: str) -> Iterator[dict[str, str]]:
        """One after the other: a million rows in memory take a gigabyte."""
        path, columns = self.index_path(split), set(INDEX_COLUMNS)
        try:
            with open(
                path, encoding="utf-8", errors="surrogateescape", newline="", opener=regular_file
            ) as file:
                for row in csv.DictReader(file):
                    if None in row or None in row.values() or set(row) != columns:
                        names = ", ".join(INDEX_COLUMNS)
                        raise DataError(
                            f"{path} is damaged: expected the columns {names}; {remedy(self.path)}"
                        )
                    yield row
        except csv.Error as error:
            raise DataError(f"{path} is damaged ({error}); {remedy(self.path)}") from error

    def image_sha256s(self, split: str = "train") -> list[str]:
        """Digest of every stored image of a split, by row; raises DataError if the CSV is damaged."""
        digests = [row["stored_sha256"] for row in self._index_rows(split)]
        is_sound = all(map(str.isascii, digests))
        if not is_sound or ordered_digest(digests) != self.images_sha256(split):
            raise DataError(
                f"{self.index_path(split)} is damaged: its digests are not those of the images; "
                f"{remedy(self.path)}"
            )
        return digests

    def shown(self) -> dict[str, Any]:
        """Its name, the sizes of its splits, its classes and where it is."""
        content = self.content
        return {
            "name": self.name,
            **{f"{name} images": split.num_images for name, split in self.splits.items()},
            "classes": len(content.class_names) if content.labelled else None,
            "path": self.path,
        }
