"""Rows that need no forward pass: those of other representations, and those of copies of an image.

A row belongs to an image, by the SHA-256 of its stored pixels, and with --crops to its crops too. Rows of
other representations are taken if prior, layer, preprocessing and stored type are the same, and so is the
arithmetic, so that their bytes are those of a new forward pass.
"""

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rela.errors import RelaError
from rela.pipeline import Say
from rela.pipeline.errors import PipelineError
from rela.pipeline.locks import in_use
from rela.pipeline.spent import Spent
from rela.representations.matrix_file import open_matrix
from rela.stages.embed.arithmetic import Arithmetic
from rela.stages.embed.wanted import Wanted
from rela.stages.workspace.representations import REPRESENTATIONS_FILE, Representations
from rela.stages.workspace.schema import as_type

_UNKNOWN = "in more than one way, or by an earlier version"
_KEY = "S32"  # a SHA-256, which NumPy sorts and compares

Images = NDArray[np.uint8]
Crops = NDArray[np.uint16] | None


class KnownRows:
    """The rows of N images, by the number of an image: known ones, and those that are to be embedded.

    `donors`: the representations that rows are taken from, and `arithmetic` theirs. Rows are [K, D], of K
    crops (or one centre crop) and D features, of type `dtype`.
    """

    def __init__(self, images: Images, crops: Crops, width: int, dtype: str) -> None:
        self._keys = _keys(images, crops)
        self._shape = (1 if crops is None else crops.shape[1], width)
        self._dtype = np.dtype(dtype)
        _, first, equal, counts = np.unique(
            self._keys, return_index=True, return_inverse=True, return_counts=True
        )
        self._first, self._is_copied = first[equal], (counts > 1)[equal]
        self._copies: dict[int, NDArray[Any]] = {}  # rows of images that come again
        self._is_asked = np.zeros(len(self._keys), bool)
        self.forget()

    def forget(self) -> None:
        """Take no rows of other representations."""
        self.donors: list[Representations] = []
        self.arithmetic: Arithmetic | None = None
        self._values: list[NDArray[Any]] = []  # of each donor, [M, K, D]
        self._donor = np.full(len(self._keys), -1)
        self._row = np.full(len(self._keys), -1)

    def take_from(self, others: list[Representations], here: Arithmetic, say: Say) -> ExitStack:
        """Take what rows `others` have, if they are as this process, `here`, would compute them.

        Those with the most rows first; all have one arithmetic. Says why others are not used, and compares
        the digests of files. What is used is protected from clean-ups until the stack is closed.
        """
        held = ExitStack()
        shared: list[tuple[Representations, NDArray[np.int64], NDArray[Any]]] = []
        for other in others:
            try:
                shared.append((other, *self._found_in(other)))
            except RelaError as error:
                say(f"not reused: {error}")
        for other, rows, values in sorted(shared, key=lambda each: -int((each[1] >= 0).sum())):
            new = (rows >= 0) & (self._donor < 0)
            if not new.any():
                continue
            theirs = _arithmetic_of(other)
            why = (
                "in more than one way, or by an earlier version"
                if theirs is None
                else here.difference(theirs)
            )
            if theirs is None or why:
                say(f"not reused: {other.name}, computed {why}")
                continue
            try:
                held.enter_context(in_use(other.path))
                other.sound_file(REPRESENTATIONS_FILE)
            except PipelineError as error:
                say(f"not reused: {error}")
                continue
            self._donor[new], self._row[new] = len(self.donors), rows[new]
            self.donors.append(other)
            self._values.append(values)
            self.arithmetic = theirs
            here = replace(here, engine=theirs.engine, number_format=theirs.number_format)
        return held

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

        `values` are the rows of the images `embedded`, which `ask` returned.
        """
        found = dict(zip(embedded.tolist(), values.reshape(-1, *self._shape), strict=True))
        self._copies |= {image: row for image, row in found.items() if self._is_copied[image]}
        out = np.empty((len(rows), *self._shape), self._dtype)
        for place in np.flatnonzero(self._donor[rows] < 0):
            image = int(self._first[rows[place]])
            out[place] = found[image] if image in found else self._copies[image]
        spent = Spent()
        for number, (donor, known) in enumerate(zip(self.donors, self._values, strict=True)):
            theirs = self._donor[rows] == number
            out[theirs] = known[self._row[rows[theirs]]]
            share = theirs.sum() / len(known)
            cost = donor.spent
            spent += Spent(cost.seconds * share, (cost.cpu_seconds or 0.0) * share)
        return out.reshape(-1, self._shape[1]), spent

    def words(self) -> str:
        """`reused 9 of 10 rows from NAME; 1 image is embedded`; empty if all are embedded."""
        num_images = len(self._keys)
        num_new = len(self.to_embed(np.arange(num_images)))
        num_reused = int((self._donor >= 0).sum())
        said = []
        if self.donors:
            names = " and ".join(donor.name for donor in self.donors)
            reused, rows = num_reused * self._shape[0], num_images * self._shape[0]
            said.append(f"reused {reused:,} of {rows:,} rows from {names}")
        if copies := num_images - num_reused - num_new:
            are = "image is a copy of another" if copies == 1 else "images are copies of others"
            said.append(f"{copies:,} {are}")
        are = "image is" if num_new == 1 else "images are"
        return "; ".join([*said, f"{num_new:,} {are} embedded"]) if said else ""

    def _found_in(self, other: Representations) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Which image of `other` each is, or -1, and the rows [M, K, D] of those; raises RelaError."""
        matrix = open_matrix(other.path / REPRESENTATIONS_FILE, verify=False)
        nothing = np.full(len(self._keys), -1), np.empty((0, *self._shape), self._dtype)
        if matrix.images is None:  # of an earlier version
            return nothing
        shape = (len(matrix.images) * self._shape[0], self._shape[1])
        num_crops = 1 if matrix.crops is None else matrix.crops.shape[1]
        if (matrix.values.shape, matrix.values.dtype, num_crops) != (
            shape, self._dtype, self._shape[0],
        ):  # fmt: skip
            return nothing
        theirs = _keys(np.asarray(matrix.images), matrix.crops)
        order = np.argsort(theirs, kind="stable")
        place = np.searchsorted(theirs, self._keys, sorter=order)
        place = order[np.minimum(place, len(order) - 1)]
        rows = np.where(theirs[place] == self._keys, place, -1)
        return rows, matrix.values.reshape(-1, *self._shape)


def with_the_same_key(wanted: Wanted) -> list[Representations]:
    """Representations of any images with the key of `wanted` but for these."""
    return [
        each
        for each in wanted.workspace.representations()
        if not each.content.shards and each.fingerprint == wanted.key_of(each.images_sha256)
    ]


def _arithmetic_of(representations: Representations) -> Arithmetic | None:
    try:
        return as_type(representations.arithmetic, Arithmetic)
    except ValueError:
        return None


def _keys(images: Images, crops: Crops) -> NDArray[np.bytes_]:
    """[N]: the digest of each image, or of image and crops."""
    if crops is None:
        return np.ascontiguousarray(images).view(_KEY)[:, 0]
    pairs = zip(images, np.ascontiguousarray(crops), strict=True)
    digests = (hashlib.sha256(image.tobytes() + boxes.tobytes()) for image, boxes in pairs)
    return np.frombuffer(b"".join(digest.digest() for digest in digests), _KEY)
