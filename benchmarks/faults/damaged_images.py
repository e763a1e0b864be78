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
from PIL import Image

Pixels = NDArray[np.uint8]
Damage = Callable[[np.random.Generator], tuple[str, bytes]]  # suffix, content
_FORMATS = {
    ".jpg": "JPEG",
    ".png": "PNG",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".webp": "WEBP",
}
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


def whole(random: np.random.Generator) -> tuple[str, bytes]:
    """An image with nothing wrong."""
    suffix = str(random.choice(list(_FORMATS)))
    return suffix, saved(photo(random), suffix)


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
    suffix = str(random.choice([".jpg", ".tif"]))
    return suffix, saved(photo(random).convert("CMYK"), suffix)


def _sixteen_bit(random: np.random.Generator) -> tuple[str, bytes]:
    gray = np.asarray(photo(random).convert("L")).astype(np.uint16)
    values = gray * 257 if random.random() < 0.5 else gray * 200 + random.integers(0, 99)
    suffix = str(random.choice([".png", ".tif"]))
    return suffix, saved(Image.fromarray(values.astype(np.uint16)), suffix)


def _palette(random: np.random.Generator) -> tuple[str, bytes]:
    suffix = str(random.choice([".png", ".gif", ".bmp", ".tif"]))
    image = photo(random).quantize(int(random.integers(2, 200)))
    options = {"transparency": 0} if suffix in (".png", ".gif") and random.random() < 0.5 else {}
    return suffix, saved(image, suffix, **options)


def _animated(random: np.random.Generator) -> tuple[str, bytes]:
    first = photo(random)
    more = [photo(random).resize(first.size) for _ in range(random.integers(1, 4))]
    suffix = str(random.choice([".gif", ".webp", ".png", ".tif"]))
    return suffix, saved(first, suffix, save_all=True, append_images=more)


def _turned(random: np.random.Generator) -> tuple[str, bytes]:
    exif = Image.Exif()
    exif[_ORIENTATION] = int(random.integers(0, 10))  # 1 to 8 mean something
    suffix = str(random.choice([".jpg", ".png", ".webp", ".tif"]))
    return suffix, saved(photo(random), suffix, exif=exif)


def _bomb(random: np.random.Generator) -> tuple[str, bytes]:
    """A small file that claims at least 90 million pixels."""
    height, width = (int(side) for side in random.integers(9_500, 60_000, 2))
    return [
        (".png", png_claiming(height, width)),
        (".gif", b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"," + bytes(40) + b";"),
        (".bmp", b"BM" + struct.pack("<IHHIIiiHH", 200, 0, 0, 54, 40, width, height, 1, 24) + bytes(150)),
        (".ppm", b"P6 %d %d 255\n" % (width, height) + bytes(100)),
        (".jpg", _claiming(saved(photo(random), ".jpg"), height, width)),
    ][random.integers(5)]  # fmt: skip


def png_claiming(height: int, width: int) -> bytes:
    """A PNG that claims a size and holds nearly no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + pixels + chunk(b"IEND", b"")


def _claiming(jpeg: bytes, height: int, width: int) -> bytes:
    frame = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:frame] + struct.pack(">HH", height, width) + jpeg[frame + 4 :]


def _wrong_suffix(random: np.random.Generator) -> tuple[str, bytes]:
    suffix = str(random.choice(list(_FORMATS)))
    no_images = (
        b"<html>404</html>",
        random.bytes(300),
        b"PK\x03\x04" + random.bytes(80),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n",
    )
    if random.random() < 0.4:
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
