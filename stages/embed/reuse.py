"""Rows that need no forward pass: those of other representations, and those of copies of an image.

A row belongs to an image, by the SHA-256 of its stored pixels, and with --crops to its crops too. Rows of
other representations, be they of a data set or of shards, are taken if prior, layer, preprocessing and
stored type are the same, and so are the arithmetic and the projection of maps, so that their bytes are those
of a new forward pass.
"""

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rela.errors import DataError, RelaError
from rela.pipeline import Say
from rela.pipeline.errors import PipelineError
from rela.pipeline.locks import in_use
from rela.pipeline.spent import Spent
from rela.priors import PriorRequest
from rela.stages.embed.arithmetic import Arithmetic
from rela.stages.embed.wanted import Vectors, Wanted
from rela.stages.priors.identify import identify
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import REPRESENTATIONS_FILE, Representations
from rela.stages.workspace.schema import as_type
from rela.stages.workspace.workspace import Workspace

_KEY = "S32"  # a SHA-256, which NumPy sorts and compares

Digests = NDArray[np.uint8]
Crops = NDArray[np.uint16] | None
Keys = NDArray[np.bytes_]


class Donor:
    """Other representations, of which rows are found by their keys; 48 bytes in memory for each.

    Raises DataError if they do not say which images they are of, or not in the format of `kind`.
    """

    def __init__(self, representations: Representations, kind: Vectors) -> None:
        self.representations = representations
        matrix = representations.matrix(verify=False)
        if matrix.images is None:
            raise DataError(f"{representations.name}, written by an earlier version")
        self._values, self.num_images = matrix.values, len(matrix.images)
        self.keys = keys_of(np.asarray(matrix.images), matrix.crops)
        self.num_rows = 1 if matrix.crops is None else matrix.crops.shape[1]  # of an image
        self.recorded_format = kind.recorded_format(representations.path) or b""
        self.format = kind.read_format(self.recorded_format)
        expected = self.num_images * self.num_rows, self.format.columns
        found = matrix.values.shape, matrix.values.dtype.name
        is_one = self.num_images and self.num_rows == (kind.settings.crops or 1)
        if not is_one or found != (expected, self.format.dtype):
            raise DataError(f"{representations.name}, whose rows have another shape")
        shards = [each for each in representations.content.shards if each.num_rows]
        self._files = [each.file for each in shards] or [REPRESENTATIONS_FILE]
        self._ends = np.cumsum([each.num_rows for each in shards] or [self.num_images])
        self._sound = set[int]()

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        prefixes = _prefixes(self.keys)
        order = np.argsort(prefixes, kind="stable")
        return prefixes[order], order

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Which image each is, or -1."""
        prefixes, order = self._sorted
        place = np.searchsorted(prefixes, _prefixes(keys))
        found = order[np.minimum(place, len(order) - 1)]
        return np.where(self.keys[found] == keys, found, -1)

    def check(self, images: NDArray[np.int64]) -> None:
        """Compare the digests of the files with these images, once; raises CorruptArtifactError."""
        for file in np.unique(np.searchsorted(self._ends, images, side="right")).tolist():
            if file not in self._sound:
                self.representations.sound_file(self._files[file])
                self._sound.add(file)

    def rows(self, images: NDArray[np.int64]) -> NDArray[Any]:
        """[len(images), K, D]."""
        rows = images[:, None] * self.num_rows + np.arange(self.num_rows)
        values: NDArray[Any] = self._values[rows.ravel()].reshape(*rows.shape, self.format.columns)
        return values

    @cached_property
    def arithmetic(self) -> Arithmetic | None:
        """In which all rows were computed; None if there were several, or if it is not known."""
        try:
            return as_type(self.representations.arithmetic, Arithmetic)
        except ValueError:
            return None


def donors_of(kind: Vectors, say: Say) -> list[Donor]:
    """The representations of other images whose rows may be taken; says which cannot be used."""
    donors = []
    for each in kind.of_other_images():
        try:
            donors.append(Donor(each, kind))
        except (RelaError, PipelineError) as error:
            say(f"not reused: {error}")
    return donors


def num_to_embed(
    workspace: Workspace,
    dataset: DataSet,
    split: str,
    request: PriorRequest,
    settings: EmbedSettings,
) -> int:
    """How many images need a forward pass by their digests, for an estimate; all if that is not known.

    Rows of another arithmetic count as known.
    """
    from rela.data.crops import CropPlan

    num_images = dataset.num_images(split)
    try:
        kind = Vectors(workspace, identify(workspace, request, may_build=False), settings)
        if not kind.of_other_images():
            return num_images
        crops = CropPlan(settings.crops).draw(dataset.open(split)) if settings.crops else None
        left = np.unique(keys_of(Wanted(kind, dataset, split).image_digests, crops))
        for donor in donors_of(kind, lambda why: None):
            left = left[donor.find(left) < 0]
    except (RelaError, PipelineError, OSError):
        return num_images
    return len(left)


class KnownRows:
    """The rows of N images, by the number of an image: known ones, and those that are to be embedded.

    `donors`: those that rows are taken from, `arithmetic` theirs; `recorded_format`: the given one, or
    theirs.
    Rows are [K, D], of K crops (or one centre crop).
    """

    def __init__(self, images: Digests, crops: Crops, recorded_format: bytes | None) -> None:
        self.keys = keys_of(images, crops)
        self._num_crops = 1 if crops is None else crops.shape[1]
        _, first, equal, counts = np.unique(
            self.keys, return_index=True, return_inverse=True, return_counts=True
        )
        self._first, self._is_copied = first[equal], (counts > 1)[equal]
        self._copies: dict[int, NDArray[Any]] = {}  # rows of images that come again
        self._is_asked = np.zeros(len(self.keys), bool)
        self._given_format = recorded_format
        self.forget()

    def forget(self) -> None:
        """Take no rows of other representations."""
        self.donors: list[Donor] = []
        self.arithmetic: Arithmetic | None = None
        self.recorded_format = self._given_format
        self._donor = np.full(len(self.keys), -1)
        self._image = np.full(len(self.keys), -1)

    def take_from(self, others: list[Donor], here: Arithmetic, say: Say) -> ExitStack:
        """Take what rows `others` have, if they are as this process, `here`, would compute them.

        Those with the most rows first; all have one arithmetic. Says why others are not used, and compares
        the digests of files. What is used is protected from clean-ups until the stack is closed.
        """
        held = ExitStack()
        found = [(other, other.find(self.keys)) for other in others]
        for other, images in sorted(found, key=lambda each: -int((each[1] >= 0).sum())):
            new = (images >= 0) & (self._donor < 0)
            if not new.any():
                continue
            theirs = other.arithmetic
            name = other.representations.name
            if theirs is None:
                say(f"not reused: {name}, computed in more than one way, or by an earlier version")
                continue
            if why := here.difference(theirs) or self._difference(other):
                say(f"not reused: {name}, computed {why}")
                continue
            try:
                held.enter_context(in_use(other.representations.path))
                other.check(images[new])
            except PipelineError as error:
                say(f"not reused: {error}")
                continue
            self._donor[new], self._image[new] = len(self.donors), images[new]
            self.donors.append(other)
            self.arithmetic, self.recorded_format = theirs, other.recorded_format
            here = replace(here, engine=theirs.engine, number_format=theirs.number_format)
        return held

    def _difference(self, other: Donor) -> str:
        """What differs in the format of another one, in words.

        An open format becomes theirs if a new one would be fitted to the same images.
        """
        if self.recorded_format is None:
            from rela.training.maps import fitted_images

            mine, theirs = (
                keys[fitted_images(keys, other.format.num_features)]
                for keys in (self.keys, other.keys)
            )
            return (
                "" if np.array_equal(mine, theirs) else "with a projection fitted to other images"
            )
        return "" if self.recorded_format == other.recorded_format else "with another projection"

    def some(self, count: int) -> NDArray[np.int64]:
        """The first images whose rows are taken from others."""
        return np.flatnonzero(self._donor >= 0)[:count]

    def to_embed(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those images that need a forward pass to know these: of equal ones the first."""
        return np.unique(self._first[rows[self._donor[rows] < 0]])

    def ask(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same without those that earlier calls returned."""
        wanted = self.to_embed(rows)
        wanted = wanted[~self._is_asked[wanted]]
        self._is_asked[wanted] = True
        return wanted

    def joined(
        self, rows: NDArray[np.int64], embedded: NDArray[np.int64], values: NDArray[Any]
    ) -> tuple[NDArray[Any], Spent]:
        """All rows [R · K, D] of these R images, and what those cost that are taken from others.

        `values` [E · K, D] are the rows of the E images `embedded`, which `ask` returned.
        """
        shape = self._num_crops, values.shape[1]
        found = dict(zip(embedded.tolist(), values.reshape(-1, *shape), strict=True))
        self._copies |= {image: row for image, row in found.items() if self._is_copied[image]}
        out = np.empty((len(rows), *shape), values.dtype)
        for place in np.flatnonzero(self._donor[rows] < 0):
            image = int(self._first[rows[place]])
            out[place] = found[image] if image in found else self._copies[image]
        spent = Spent()
        for number, donor in enumerate(self.donors):
            theirs = self._donor[rows] == number
            out[theirs] = donor.rows(self._image[rows[theirs]])
            share = theirs.sum() / donor.num_images
            cost = donor.representations.spent
            spent += Spent(cost.seconds * share, (cost.cpu_seconds or 0.0) * share)
        return out.reshape(-1, values.shape[1]), spent

    def words(self) -> str:
        """`reused 9 of 10 rows from NAME; 1 image is embedded`; empty if all are embedded."""
        num_images = len(self.keys)
        num_new = len(self.to_embed(np.arange(num_images)))
        num_reused = int((self._donor >= 0).sum())
        said = []
        if self.donors:
            names = " and ".join(donor.representations.name for donor in self.donors)
            reused, rows = num_reused * self._num_crops, num_images * self._num_crops
            said.append(f"reused {reused:,} of {rows:,} rows from {names}")
        if copies := num_images - num_reused - num_new:
            are = "image is a copy of another" if copies == 1 else "images are copies of others"
            said.append(f"{copies:,} {are}")
        are = "image is" if num_new == 1 else "images are"
        return "; ".join([*said, f"{num_new:,} {are} embedded"]) if said else ""


def keys_of(images: Digests, crops: Crops) -> Keys:
    """[N]: the digest of each image, or of image and crops."""
    if crops is None:
        return np.ascontiguousarray(images).view(_KEY)[:, 0]
    pairs = zip(images, np.ascontiguousarray(crops), strict=True)
    digests = (hashlib.sha256(image.tobytes() + boxes.tobytes()) for image, boxes in pairs)
    return np.frombuffer(b"".join(digest.digest() for digest in digests), _KEY)


def _prefixes(keys: Keys) -> NDArray[np.uint64]:
    """[N]: the first bytes of each, which tell digests apart and sort faster than all of them."""
    return keys.view(np.uint64).reshape(len(keys), -1)[:, 0]
