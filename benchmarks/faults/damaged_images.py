"""Ten kinds of images that are damaged or merely unusual, and what the documentation says of each file.

`documented` is an account of its own: Pillow's pixels, 16-bit gray divided by 257, nothing turned.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
Damage = Callable[[np.random.Generator], tuple[str, bytes]]  # suffix, content
_FORMATS = {
    ".jpg": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".webp": "WEBP",
}  # fmt: skip
_SIXTEEN_BITS = ("I;16", "I;16B", "I")
_MOST_PIXELS, _MOST_A_SIDE = 89_478_485, 65_535
_ORIENTATION = 0x0112


def photo(random: np.random.Generator) -> Image.Image:
    """A smooth random picture of 20 to 80 pixels a side."""
    height, width = random.integers(20, 80, 2)
    small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((int(width), int(height)), Image.Resampling.BICUBIC)


def saved(image: Image.Image, suffix: str, **options: object) -> bytes:
    """The bytes of a file of this format."""
    file = io.BytesIO()
    image.save(file, _FORMATS[suffix], **options)
    return file.getvalue()


def _saved_as(
    random: np.random.Generator, image: Image.Image, *suffixes: str, **options: object
) -> tuple[str, bytes]:
    """In one of these formats, or any."""
    suffix = str(random.choice(suffixes or list(_FORMATS)))
    return suffix, saved(image, suffix, **options)


def whole(random: np.random.Generator) -> tuple[str, bytes]:
    """An image with nothing wrong."""
    return _saved_as(random, photo(random))


def documented(content: bytes) -> Pixels | None:
    """What raw storage holds of a file, uint8 [height, width, 3]; None if it is to be refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content))
            if image.width * image.height > _MOST_PIXELS or max(image.size) > _MOST_A_SIDE:
                return None
            if image.format == "EPS":  # Pillow would have another program read it
                return None
            image.load()
            image = ImageOps.exif_transpose(image)
    except Exception:
        return None
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(image).astype(np.float64)
        if image.mode == "I" and values.max() <= 255:
            values = values * 257
        return np.dstack([np.rint(values / 257).astype(np.uint8)] * 3)
    return np.asarray(image.convert("RGB"))


def _truncated(random: np.random.Generator) -> tuple[str, bytes]:
    suffix, content = whole(random)
    return suffix, content[: random.integers(len(content))]


def _flipped(random: np.random.Generator) -> tuple[str, bytes]:
    suffix, content = whole(random)
    changed = np.frombuffer(content, np.uint8).copy()
    for place in random.integers(0, len(changed), random.integers(1, 8)):
        changed[place] ^= np.uint8(1 << random.integers(8))
    return suffix, changed.tobytes()


def _zero_tail(random: np.random.Generator) -> tuple[str, bytes]:
    suffix, content = whole(random)
    keep = int(random.integers(len(content)))
    return suffix, content[:keep] + bytes(len(content) - keep)


def _cmyk(random: np.random.Generator) -> tuple[str, bytes]:
    return _saved_as(random, photo(random).convert("CMYK"), ".jpg", ".tif")


def _sixteen_bit(random: np.random.Generator) -> tuple[str, bytes]:
    gray = np.asarray(photo(random).convert("L")).astype(np.uint16)
    values = gray * 257 if random.random() < 0.5 else gray * 200 + random.integers(0, 99)
    return _saved_as(random, Image.fromarray(values.astype(np.uint16)), ".png", ".tif")


def _palette(random: np.random.Generator) -> tuple[str, bytes]:
    image = photo(random).quantize(int(random.integers(2, 200)))
    if random.random() < 0.5:
        return _saved_as(random, image, ".png", ".gif", transparency=0)
    return _saved_as(random, image, ".png", ".gif", ".bmp", ".tif")


def _animated(random: np.random.Generator) -> tuple[str, bytes]:
    first = photo(random)
    more = [photo(random).resize(first.size) for _ in range(random.integers(1, 4))]
    options = {"save_all": True, "append_images": more}
    return _saved_as(random, first, ".gif", ".webp", ".png", ".tif", **options)


def _turned(random: np.random.Generator) -> tuple[str, bytes]:
    exif = Image.Exif()
    exif[_ORIENTATION] = int(random.integers(0, 10))  # 1 to 8 mean something
    return _saved_as(random, photo(random), ".jpg", ".png", ".webp", ".tif", exif=exif)


def _bomb(random: np.random.Generator) -> tuple[str, bytes]:
    """A small file that claims at least 90 million pixels."""
    height, width = (int(side) for side in random.integers(9_500, 60_000, 2))
    return list(claiming(height, width).items())[random.integers(5)]


def claiming(height: int, width: int) -> dict[str, bytes]:
    """By suffix: small files that claim a size, as far as the format goes, and hold nearly no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    short = min(height, 0xFFFF), min(width, 0xFFFF)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    jpeg = saved(photo(np.random.default_rng(0)), ".jpg")
    frame = jpeg.index(b"\xff\xc0") + 5
    size = struct.pack("<HH", *reversed(short))
    bmp = struct.pack("<IHHIIiiHH", 200, 0, 0, 54, 40, width, height, 1, 24)
    return {
        ".png": b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""),
        ".gif": b"GIF89a" + size + bytes(3) + b"," + bytes(4) + size + bytes(50),
        ".bmp": b"BM" + bmp + bytes(150),
        ".ppm": b"P6 %d %d 255\n" % (width, height) + bytes(100),
        ".jpg": jpeg[:frame] + struct.pack(">HH", *short) + jpeg[frame + 4 :],
    }


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


def _wrong_suffix(random: np.random.Generator) -> tuple[str, bytes]:
    suffix, _ = whole(random)
    if random.random() < 0.4:
        no_images = (b"<html>404</html>", random.bytes(300), b"PK\x03\x04" + bytes(80), POSTSCRIPT)
        return suffix, no_images[random.integers(len(no_images))]
    return suffix, whole(random)[1]


KINDS: dict[str, Damage] = {
    "truncated": _truncated,
    "flipped bits": _flipped,
    "zero tail": _zero_tail,
    "CMYK": _cmyk,
    "16 bits": _sixteen_bit,
    "palette": _palette,
    "animated": _animated,
    "EXIF-rotated": _turned,
    "decompression bomb": _bomb,
    "wrong suffix": _wrong_suffix,
}
