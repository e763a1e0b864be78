"""One image file → RGB pixels, or the reason why it cannot be used."""

import contextlib
import io
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# Formats that Pillow names but cannot decode, or decodes by starting another program (EPS).
NOT_PICTURES = frozenset(["BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"])
MAX_SIDE = 65_535  # pixels; sizes in a beton have 16 bits
MAX_FILE_BYTES = 1 << 30  # more than Pillow's largest image at 8 bytes per pixel
_NO_IMAGE = "not an image that Pillow can read"
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason, as data sets record it."""


def read_image_file(path: Path) -> bytes:
    """All bytes of a file; raises BadImageError for a file that is unreadable or too large.

    Pipes and devices are not opened: reading one would wait or continue forever.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError("not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise BadImageError(f"too large: {status.st_size:,} bytes, at most {MAX_FILE_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror}") from error


def decode_image(content: bytes, alpha_on_white: bool = False) -> NDArray[np.uint8]:
    """A file's bytes → RGB uint8 [height, width, 3], as torchvision's image loader decodes it.

    One deliberate difference: 16-bit gray images are scaled to 8 bits (value / 257), because a plain
    conversion clips nearly every pixel to white. Alpha is dropped, or composited on white. Of an
    animation the first frame is taken. EXIF orientation is ignored (but Pillow applies that of TIFF).

    Raises BadImageError for files that are empty, truncated, too large, not an image, or
    decompression bombs.
    """
    with opened_image(content) as image:
        image.load()
        _check_size(image)  # again: some formats know their size only once decoded
        return np.asarray(_to_rgb(image, alpha_on_white))


def plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels of a JPEG in RGB or gray, None for other images. Reads the header only.

    Raises BadImageError as `decode_image`.
    """
    with opened_image(content) as image:
        if image.format != "JPEG" or image.mode not in ("RGB", "L"):
            return None
        return image.height, image.width


def check_jpeg(content: bytes) -> None:
    """Find damage in a JPEG without decoding it fully; raises BadImageError as `decode_image`.

    Decoding at 1/8 of the size reads every bit, where damage shows, and skips 63 of 64 pixels.
    """
    with opened_image(content) as image:
        image.draft(None, (1, 1))
        image.load()


@contextlib.contextmanager
def opened_image(content: bytes) -> Iterator[Image.Image]:
    """The image with its header read; every error, now or in the body, becomes a BadImageError."""
    if not content:
        raise BadImageError("empty file (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                if image.format in NOT_PICTURES:
                    raise BadImageError(_NO_IMAGE)
                _check_size(image)
                yield image
    except BadImageError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImageError("decompression bomb: more pixels than Pillow's safety limit") from error
    except UnidentifiedImageError as error:
        raise BadImageError(_NO_IMAGE) from error
    except MemoryError as error:
        raise BadImageError("too large: not enough memory to decode it") from error
    except Exception as error:  # Pillow's plugins raise errors of any type
        raise BadImageError(f"damaged: {str(error).strip() or type(error).__name__}") from error


def _check_size(image: Image.Image) -> None:
    if max(image.size) > MAX_SIDE:
        raise BadImageError(
            f"too large: {image.width}×{image.height} pixels, at most {MAX_SIDE} a side"
        )


def _to_rgb(image: Image.Image, alpha_on_white: bool) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES or image.mode == "I":
        values = np.asarray(image)
        if image.mode == "I" and (values.min() < 0 or values.max() > 65_535):
            raise BadImageError("32-bit gray values beyond 16 bits; convert it to 8 or 16 bits")
        scaled = values
        if image.mode != "I" or values.max() > 255:  # 32-bit files often hold 8-bit values
            scaled = (values.astype(np.uint32) + 128) // 257
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImageError("floating-point pixels; convert it to 8 or 16 bits")
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    if alpha_on_white and has_alpha:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
