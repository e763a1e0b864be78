"""Places of images that are no files of their own: see `rela.sources.sample.Place`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.regular_file import regular_file
from rela.image_file import MAX_FILE_BYTES, BadImageError


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
