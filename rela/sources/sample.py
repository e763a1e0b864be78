"""One image of a source: what it is called, its class, and where its bytes lie."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rela.image_file import read_image_file

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
