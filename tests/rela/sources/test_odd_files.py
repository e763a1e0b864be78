"""Odd files that people have under the names of images: their pixels, or what is said of them.

Covers: TIFFs whose zero is white, signed, floating-point or in planes; CMYK as Adobe writes it; palettes with
alpha; animations and pages, whose first is stored and which are counted; the reasons for web pages, pointers,
other formats and incomplete copies. Pixels are compared with NumPy's, by value.
"""

import io

import numpy as np
import pytest
from command_line import Rela, read_json
from pictures import picture
from PIL import Image
from tiny_pngs import COLOUR, chunk, png, tiff

from rela.sources.image_file import BadImageError
from rela.sources.pixels import PixelRules, decode, decode_image

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 65_536, (4, 6, 1)).astype(np.uint16)
COLOURS = RANDOM.integers(0, 65_536, (4, 6, 3)).astype(np.uint16)


def saved(image: Image.Image, image_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def eight_bits(values: np.ndarray, white: float) -> np.ndarray:
    return np.broadcast_to(np.rint(values / white * 255), (*values.shape[:2], 3))


# TIFF


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_zero_is_white_where_a_tiff_says_so(orientation):
    pixels, origin = decode(tiff(GRAY, white_is_zero=True, orientation=orientation), PixelRules())
    expected = np.rot90(eight_bits(65_535.0 - GRAY, 65_535), {1: 0, 3: 2, 6: -1}[orientation])
    np.testing.assert_array_equal(pixels, expected)
    assert (origin.depth, origin.largest) == ("integer", 65_535 - GRAY.min())
    small = (GRAY >> 8).astype(np.uint8)
    np.testing.assert_array_equal(
        decode_image(tiff(small, 8, white_is_zero=True)), eight_bits(255.0 - small, 255)
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(COLOURS), eight_bits(COLOURS, 65_535)),
        (tiff((COLOURS >> 8).astype(np.uint8), 8, planes=True), COLOURS >> 8),
        (tiff(GRAY.astype(np.int32), 32, sample_format=2), eight_bits(GRAY, 65_535)),
        (tiff((GRAY >> 9).astype(np.int8), 8, sample_format=2), eight_bits(GRAY >> 9, 255)),
        (tiff(np.float32(GRAY / 65_535), 32, sample_format=3), eight_bits(GRAY, 65_535)),
    ],
)
def test_kinds_of_tiffs(content, expected):
    np.testing.assert_array_equal(decode_image(content), expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff(COLOURS, planes=True), "16 bits in separate planes"),
        (tiff(np.float32(GRAY) / 65_535, 32, sample_format=3, white_is_zero=True), "zero is white"),
        (tiff((GRAY >> 8).astype(np.int8), 8, sample_format=2), "negative"),
        (tiff(GRAY.astype(np.int16), 16, sample_format=2), "negative"),
        (tiff(COLOURS.astype(np.float32), 32, sample_format=3), "3 channels of 32-bit floating"),
        (tiff(GRAY.astype(np.float64), 64, sample_format=3), "1 channel of 64-bit floating"),
    ],
)
def test_tiffs_that_would_be_read_wrongly_are_refused(content, words):
    with pytest.raises(BadImageError, match=words):
        decode_image(content)


# Others


def test_cmyk_as_adobe_writes_it_is_inverted():
    colours = picture(3, 16, 16)
    cmyk = 255 - np.dstack([colours, np.full((16, 16), 255, np.uint8)])  # no black
    content = saved(Image.frombytes("CMYK", (16, 16), cmyk.tobytes()), "JPEG", quality=100)
    assert b"Adobe" in content
    assert np.abs(decode_image(content).astype(int) - colours).mean() < 2


def test_exif_turns_cmyk_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    colours = np.zeros((16, 32, 3), np.uint8)
    colours[:, 16:] = 200
    content = saved(Image.fromarray(colours).convert("CMYK"), "JPEG", quality=100, exif=exif)
    expected = np.rot90(colours, -1)
    assert np.abs(decode_image(content).astype(int) - expected).max() < 8


def test_small_palettes_with_alpha():
    alpha = [0, 51, 255, 255]
    palette = RANDOM.integers(0, 256, (4, 3)).astype(np.uint8)
    rows = [bytes([0b00_01_10_11]), bytes([0b11_10_01_00])]
    content = png(
        rows, 4, 2, COLOUR + 1, chunk(b"PLTE", palette.tobytes()), chunk(b"tRNS", bytes(alpha))
    )
    share = np.array(alpha)[:, None] / 255
    colours = share * palette + (1 - share) * 255
    expected = colours[[[0, 1, 2, 3], [3, 2, 1, 0]]]
    assert np.abs(decode_image(content) - expected).max() <= 1


def test_the_first_frame_is_stored_and_that_is_said(rela: Rela, tmp_path):
    frames = [Image.fromarray(picture(seed, 9, 9)) for seed in range(3)]
    (tmp_path / "set").mkdir()
    formats = {
        "gif": "GIF",
        "webp": "WEBP",
        "png": "PNG",
        "tif": "TIFF",
        "avif": "AVIF",
        "mpo": "MPO",
    }
    for suffix, image_format in formats.items():
        options = {"lossless": True} if suffix == "webp" else {}
        content = saved(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
        (tmp_path / "set" / f"1.{suffix}").write_bytes(content)
        (tmp_path / "set" / f"0.{suffix}").write_bytes(saved(frames[0], image_format))
        pixels, origin = decode(content, PixelRules())
        assert origin.several == (suffix != "mpo")  # of which the others are previews
        assert np.abs(pixels.astype(int) - picture(0, 9, 9)).mean() < 12  # lossy ones lose a little
        if suffix in ("webp", "png", "tif"):
            np.testing.assert_array_equal(pixels, picture(0, 9, 9))
    assert "  frames      5 of several frames or pages, the first is stored (1.avif)" in (
        rela("convert", tmp_path / "set").stdout.splitlines()
    )
    assert read_json(rela("status", "set", "--json"))["summary"]["several"]["count"] == 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n<!DOCTYPE HTML><html>404</html>", "a web page"),
        (b"<?xml version='1.0'?><Error/>", "an XML document, or SVG"),
        (b'{"error": 404}', "a JSON document"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "`git lfs pull`"),
        (bytes(5000), "5,000 zero bytes"),
        (bytes(128) + b"DICM" + bytes(9), "a DICOM file"),
        (b"\x1f\x8b\x08\0", "compressed by gzip"),
        (b"%PDF-1.7", "a PDF document"),
        (b"II*\0" + bytes(9), "a TIFF or raw photo"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "that Pillow can read"),
        (b"none", "that Pillow can read"),
    ],
)
def test_what_is_no_image_is_named(content, words):
    with pytest.raises(BadImageError, match="not an image") as caught:
        decode_image(content)
    assert words in str(caught.value)
