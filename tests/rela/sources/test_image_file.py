"""Decoding image files.

Covers: every format and mode that Pillow writes, against torchvision's `pil_loader`; which files count
as plain JPEG, and that their quick check finds what reading them completely finds; the reason given for
each kind of file that cannot be used. Alpha, EXIF and more than 8 bits: test_pixels.py.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from PIL import Image
from torchvision.datasets.folder import pil_loader

from rela.sources.image_file import (
    MAX_SIDE,
    BadImageError,
    check_jpeg,
    plain_jpeg_size,
)
from rela.sources.pixels import decode_image

# What Pillow can write and a photo may be stored as: (format, mode).
STORED_AS = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    *(("JPEG", mode) for mode in ("L", "RGB", "CMYK", "YCbCr")),
    *(("JPEG2000", mode) for mode in ("L", "LA", "RGB", "RGBA")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB", "RGBA")),
    *(("GIF", mode) for mode in ("L", "P", "RGB")),
    *(("TIFF", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")),
    *(("WEBP", mode) for mode in ("L", "RGB", "RGBA")),
    *(("AVIF", mode) for mode in ("RGB", "RGBA")),
    *(("PPM", mode) for mode in ("1", "L", "RGB")),
    *(("TGA", mode) for mode in ("L", "P", "RGB", "RGBA")),
    *(("PCX", mode) for mode in ("1", "L", "P", "RGB")),
    *(("SGI", mode) for mode in ("L", "RGB")),
]


def photo(mode: str, height: int = 21, width: int = 34) -> Image.Image:
    image = Image.fromarray(picture(7, height, width))
    if "A" in mode:
        image.putalpha(Image.fromarray(picture(8, height, width)[:, :, 0]))
    return image.quantize(64) if mode == "P" else image.convert(mode)


def saved(image: Image.Image, image_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def assert_read_as_torchvision(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(content)
    expected = np.asarray(pil_loader(tmp_path / "image"))
    np.testing.assert_array_equal(decode_image(content), expected)


def reason(content: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        decode_image(content)
    return str(caught.value)


# Pixels


@pytest.mark.parametrize(("image_format", "mode"), STORED_AS)
def test_pixels_are_those_of_torchvisions_loader(tmp_path, image_format, mode):
    content = saved(photo(mode), image_format)
    pixels = decode_image(content)
    assert pixels.dtype == np.uint8 and pixels.shape == (21, 34, 3)
    if "A" not in mode:
        assert_read_as_torchvision(content, tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"quality": 20}, {"subsampling": 0}, {"restart_marker_blocks": 1}],
)
def test_every_kind_of_jpeg_is_read(tmp_path, options):
    assert_read_as_torchvision(saved(photo("RGB"), "JPEG", **options), tmp_path)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert_read_as_torchvision(content, tmp_path)


@pytest.mark.parametrize(("image_format", "mode"), STORED_AS)
def test_only_plain_jpegs_keep_their_bytes(image_format, mode):
    content = saved(photo(mode), image_format)
    plain = image_format == "JPEG" and mode != "CMYK"
    assert (plain_jpeg_size(content) == (21, 34)) == plain


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Cut off, or with some bytes replaced, missing or added."""
    at, count = random.integers(len(content)), random.integers(1, 20)
    noise = random.integers(0, 256, count, dtype=np.uint8).tobytes()
    return (
        content[:at],
        content[:at] + noise[:1] + content[at + 1 :],
        content[:at] + content[at + count :],
        content[:at] + noise + content[at:],
    )[random.integers(4)]


def reads(content: bytes) -> bool:
    """Whether Pillow reads it to its end."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception:
        return False
    return True


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 0}]
)
@pytest.mark.filterwarnings("ignore")  # Pillow's, of damage in the metadata
def test_the_quick_check_refuses_what_pillow_refuses(mode, options):
    random = np.random.default_rng(0)
    whole = saved(photo(mode), "JPEG", **options)
    check_jpeg(whole)
    outcomes = []
    for _ in range(400):
        content = damaged(whole, random)
        try:
            if plain_jpeg_size(content) is None:
                continue
            check_jpeg(content)
        except BadImageError:
            outcomes.append(False)
        else:
            outcomes.append(True)
        assert outcomes[-1] == reads(content)
    assert 50 < sum(outcomes) < len(outcomes) - 50


# What cannot be used


def png_head(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nearly no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"x", b"GIF8", b"\xff\xd8"])
def test_other_and_empty_files_are_refused(content):
    assert reason(content) == "not an image that Pillow can read"
    assert reason(b"") == "empty file (0 bytes)"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused(image_format, share):
    content = saved(photo("RGB", 100, 100), image_format)
    assert reason(content[: int(share * len(content))]).startswith(("damaged: ", "not an image"))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_the_reason_says_that_the_file_is_truncated(image_format):
    content = saved(photo("RGB", 100, 100), image_format)
    assert "truncated" in reason(content[: len(content) // 2]).lower()


def test_a_damaged_png_is_refused():
    content = bytearray(saved(photo("RGB", 100, 100), "PNG"))
    content[len(content) // 2] ^= 0xFF
    assert reason(bytes(content)).startswith("damaged: ")


@pytest.mark.parametrize("side", [10_000, 20_000])  # Pillow warns of the one, refuses the other
def test_a_decompression_bomb_is_refused(side):
    assert reason(png_head(side, side)).startswith("decompression bomb")


@pytest.mark.parametrize(("width", "height"), [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1)])
def test_a_side_beyond_16_bits_is_refused(width, height):
    found = reason(saved(Image.new("RGB", (width, height)), "PNG"))
    assert found == f"too large: {width}×{height} pixels, at most 65535 a side"


def test_the_largest_side_is_accepted():
    content = saved(Image.new("RGB", (MAX_SIDE, 1), "red"), "PNG")
    assert decode_image(content).shape == (1, MAX_SIDE, 3)
