"""How one image is stored in a beton: raw pixels, a newly encoded JPEG, or the file's own JPEG."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rela.data.ffcv_format import MODE_JPEG, MODE_RAW, PAGE_BYTES
from rela.sources.image_file import BadImageError, check_jpeg, plain_jpeg_size
from rela.sources.pixels import PLAIN_RULES, Origin, PixelRules, decode
from rela.sources.source import Content

_LARGEST_JPEG_SIDE = 65_500
AUTO_RAW_PIXELS = 128 * 128  # `auto` stores images up to this size as raw pixels, lossless


@dataclass(frozen=True)
class Encoding:
    """How images are stored.

    - `write_mode`: `raw` pixels, `jpg`, a fixed share of JPEG (`proportion`), or by size (`auto`);
    - `jpeg_quality`: of images that must be encoded; plain JPEG files that need no resize are stored
      unchanged;
    - `jpeg_share`: the share of JPEG in `proportion`;
    - `max_side`: larger images are shrunk to this longer side, in pixels;
    - `pixels`: the background of transparent images, and the range of values of more than 8 bits.
    """

    write_mode: str = "auto"
    jpeg_quality: int = 90
    jpeg_share: float = 0.5
    max_side: int | None = None
    pixels: PixelRules = PLAIN_RULES


@dataclass(frozen=True)
class StoredImage:
    """One encoded image, ready for a page; `one_colour`: all its pixels are equal."""

    data: bytes
    mode: int
    height: int
    width: int
    origin: Origin
    one_colour: bool

    @property
    def sha256(self) -> str:
        """SHA-256 over mode, size and bytes."""
        head = f"{self.mode},{self.height},{self.width};".encode()
        return hashlib.sha256(head + self.data).hexdigest()


def encode_image(content: Content, encoding: Encoding, draw: float) -> StoredImage:
    """Check, shrink and encode the bytes of one file, or RGB pixels uint8 [height, width, 3].

    `draw` in [0, 1) decides `proportion`. Raises BadImageError with the reason.
    """
    kept = _pixels_if_kept(content, encoding, draw) if isinstance(content, bytes) else None
    if kept is not None:
        pixels, origin = kept, Origin("JPEG")
        height, width = kept.shape[:2]
        data, mode = bytes(content), "jpg"
    else:
        if isinstance(content, bytes):
            content, origin = decode(content, encoding.pixels)
        else:
            origin = Origin("array")
        pixels = _shrink(content, encoding.max_side)
        height, width = pixels.shape[:2]
        mode = _mode(height, width, encoding, draw)
        if mode == "raw":
            data = np.ascontiguousarray(pixels).tobytes()
        else:
            data = _encode_jpeg(pixels, encoding.jpeg_quality)
    if len(data) > PAGE_BYTES:
        raise BadImageError(
            f"too large: {width}×{height} pixels take {len(data):,} bytes stored as {mode}, a page "
            f"of the beton holds {PAGE_BYTES:,}; use --write-mode jpg or --max-side"
        )
    number = MODE_RAW if mode == "raw" else MODE_JPEG
    return StoredImage(data, number, height, width, origin, _is_one_colour(pixels))


def _is_one_colour(pixels: NDArray[np.uint8]) -> bool:
    first_row, first = pixels[0], pixels[0, 0]  # the row decides nearly always
    return bool((first_row == first).all() and (pixels == first).all())


def _mode(height: int, width: int, encoding: Encoding, draw: float) -> str:
    """`raw` or `jpg`, for an image of this size in pixels."""
    if encoding.write_mode == "auto":
        return "raw" if height * width <= AUTO_RAW_PIXELS else "jpg"
    if encoding.write_mode == "proportion":
        return "jpg" if draw < encoding.jpeg_share else "raw"
    return encoding.write_mode


def _pixels_if_kept(content: bytes, encoding: Encoding, draw: float) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG file to store unchanged, because both decoders accept it; else None."""
    size = plain_jpeg_size(content)
    if size is None or _mode(*size, encoding, draw) == "raw":
        return None
    if encoding.max_side is not None and max(size) > encoding.max_side:
        return None
    check_jpeg(content)
    return _decoded(content, *size)


def _shrink(pixels: NDArray[np.uint8], max_side: int | None) -> NDArray[np.uint8]:
    """Area-average to `max_side` on the longer side, like FFCV's `max_resolution`."""
    longer = max(pixels.shape[:2])
    if max_side is None or longer <= max_side:
        return pixels
    height, width = (max(1, int(side * max_side / longer)) for side in pixels.shape[:2])
    shrunk = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.uint8)


def _encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    if max(pixels.shape) > _LARGEST_JPEG_SIDE:
        raise BadImageError(
            f"too large: a JPEG has at most {_LARGEST_JPEG_SIDE} pixels a side; use --max-side"
        )
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    success, encoded = cv2.imencode(".jpg", bgr, [int(cv2.IMWRITE_JPEG_QUALITY), quality])
    if not success:
        raise BadImageError("OpenCV cannot encode it as JPEG")
    return bytes(encoded)


def _decoded(jpeg: bytes, height: int, width: int) -> NDArray[np.uint8] | None:
    """RGB pixels by FFCV's decoder, which reads the beton later; None if it refuses these bytes."""
    from rela.data.kernels import decode as kernel

    out = np.empty(height * width * 3, np.uint8)
    data = np.frombuffer(jpeg, np.uint8)
    if kernel.decode(data, MODE_JPEG, height, width, out) != kernel.OK:
        return None
    return out.reshape(height, width, 3)
