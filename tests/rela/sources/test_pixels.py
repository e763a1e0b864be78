"""Files → RGB pixels of 8 bits (rela.sources.pixels).

Covers: alpha of every mode, and transparent colours and palette entries, composited by the closed form;
EXIF's eight orientations in every format that carries them, against `ImageOps.exif_transpose` and once;
values of 10, 12, 14 and 16 bits and floating-point ones, against NumPy; what is said of each file.
"""

import io
import struct
import sys

import numpy as np
import pytest
from pictures import picture
from PIL import Image, ImageOps
from tiny_pngs import COLOUR, GRAY, chunk, deep_png, png, tiff

from rela.errors import ChoiceError
from rela.sources.image_file import BadImageError, plain_jpeg_size
from rela.sources.pixels import (
    UNIT,
    PixelRules,
    bits_for,
    colour_in_words,
    colour_of,
    decode,
    decode_image,
    with_range_of,
)

GREEN = PixelRules((0, 200, 0))
IGNORED = PixelRules(None)
WITH_ALPHA = [
    ("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("TIFF", "RGBA"), ("TIFF", "LA"), ("TIFF", "PA"),
    ("AVIF", "RGBA"), ("JPEG2000", "RGBA"), ("JPEG2000", "LA"), ("TGA", "RGBA"), ("ICO", "RGBA"),
    ("DDS", "RGBA"),
]  # fmt: skip


def saved(image: Image.Image, image_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def half_there(mode: str) -> Image.Image:
    """A picture whose alpha takes many values, 0 and 255 among them."""
    image = Image.fromarray(picture(7, 32, 32)).convert(mode.removesuffix("A"))
    image.putalpha(Image.fromarray(np.resize(np.arange(256, dtype=np.uint8), (32, 32))))
    return image


def composited(rgba: np.ndarray, background) -> np.ndarray:
    alpha = rgba[:, :, 3:].astype(float) / 255
    return alpha * rgba[:, :, :3] + (1 - alpha) * np.asarray(background, float)


# Alpha


@pytest.mark.parametrize(("image_format", "mode"), WITH_ALPHA)
@pytest.mark.parametrize("rules", [PixelRules(), GREEN])
def test_alpha_is_composited_on_the_background(image_format, mode, rules):
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = saved(half_there(mode), image_format, **options)
    with Image.open(io.BytesIO(content)) as image:
        rgba = np.asarray(image.convert("RGBA"))
    pixels, origin = decode(content, rules)
    assert np.abs(pixels - composited(rgba, rules.background)).max() <= 1
    assert origin.transparent and (pixels[rgba[:, :, 3] == 0] == rules.background).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_ignored_alpha_leaves_the_colours(mode):
    image = half_there(mode)
    content = saved(image, "PNG")
    pixels, origin = decode(content, IGNORED)
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    assert origin.transparent


@pytest.mark.parametrize(("image_format", "mode"), WITH_ALPHA)
def test_opaque_alpha_changes_nothing(image_format, mode):
    image = Image.fromarray(picture(7, 32, 32)).convert(mode.removesuffix("A"))
    image.putalpha(255)
    content = saved(image, image_format)
    pixels, origin = decode(content, GREEN)
    with Image.open(io.BytesIO(content)) as file:
        np.testing.assert_array_equal(pixels, np.asarray(file.convert("RGB")))
    assert not origin.transparent


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_composited(image_format):
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4), "L").convert("P")
    content = saved(image, image_format, transparency=image.getpixel((1, 2)))
    pixels = decode_image(content, GREEN)
    assert pixels[2, 1].tolist() == [0, 200, 0]
    assert (pixels == (0, 200, 0)).all(axis=2).sum() == 1


def test_palette_entries_with_alpha_as_bytes_are_composited():
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).convert("P")
    content = saved(image, "PNG", transparency=bytes(range(0, 256, 17)))
    rgba = np.dstack([np.arange(16).reshape(4, 4)] * 3 + [np.arange(0, 256, 17).reshape(4, 4)])
    assert np.abs(decode_image(content, GREEN) - composited(rgba, GREEN.background)).max() <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_gray_is_that_of_the_files_own_bits(depth):
    values = [0, 1] if depth == 1 else [3, 1]
    digits = "".join(f"{value:0{depth}b}" for value in values).ljust(8, "0")
    row = int(digits, 2).to_bytes(len(digits) // 8, "big")
    content = png([row], 2, depth, GRAY, chunk(b"tRNS", struct.pack(">H", values[1])))
    pixels = decode_image(content, GREEN)
    white = 2**depth - 1
    assert pixels[0, 0].tolist() == [round(values[0] * 255 / white)] * 3
    assert pixels[0, 1].tolist() == [0, 200, 0]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_composited(depth):
    kind = ">3B" if depth == 8 else ">3H"
    row = struct.pack(kind, 200, 10, 5) + struct.pack(kind, 200, 10, 6)
    content = png([row], 2, depth, COLOUR, chunk(b"tRNS", struct.pack(">3H", 200, 10, 6)))
    pixels, origin = decode(content, GREEN)
    assert pixels[0, 1].tolist() == [0, 200, 0] and pixels[0, 0].tolist() != [0, 200, 0]
    assert origin.transparent


def test_a_transparent_gray_of_no_pixel_changes_nothing():
    content = png([bytes([3, 44])], 2, 8, GRAY, chunk(b"tRNS", struct.pack(">H", 300)))
    pixels, origin = decode(content, GREEN)
    assert pixels[0, :, 0].tolist() == [3, 44] and not origin.transparent


@pytest.mark.parametrize(
    ("text", "colour", "words"),
    [
        ("white", (255, 255, 255), "white"), ("#fff", (255, 255, 255), "white"), ("none", None, "none"),
        ("#102030", (16, 32, 48), "#102030"), ("black", (0, 0, 0), "#000000"),
    ],
)  # fmt: skip
def test_names_of_colours(text, colour, words):
    assert colour_of(text) == colour and colour_in_words(colour) == words
    assert colour_of(words) == colour


def test_another_word_is_no_colour():
    with pytest.raises(ChoiceError, match="--background bleu: expected a colour such as white"):
        colour_of("bleu")


# EXIF

TURNED = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"]


def exif(number: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = number
    return found


def blocks() -> Image.Image:
    """Four colours in blocks of 8 pixels, so that codecs keep them: no symmetry."""
    four = np.array([[[250, 10, 10], [10, 240, 10], [10, 10, 250]], [[240, 240, 10]] * 3], np.uint8)
    return Image.fromarray(four.repeat(16, 0).repeat(16, 1))


def upright(number: int) -> np.ndarray:
    """The blocks turned by Pillow, as signed integers."""
    image = blocks()
    image.info["exif"] = exif(number).tobytes()
    return np.asarray(ImageOps.exif_transpose(image)).astype(int)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("image_format", TURNED)
def test_the_orientation_in_exif_is_applied_once(image_format, number):
    options = {"lossless": True} if image_format == "WEBP" else {}
    if image_format == "MPO":
        options = {"save_all": True, "append_images": [blocks()]}
    content = saved(blocks(), image_format, exif=exif(number), **options)
    pixels, origin = decode(content, PixelRules())
    assert pixels.shape == upright(number).shape
    assert np.abs(pixels - upright(number)).mean() < 12  # JPEG and AVIF lose a little
    assert origin.turned == (number != 1) and origin.format == image_format


def test_exif_behind_the_pixels_of_a_png_is_applied():
    content = saved(blocks(), "PNG")
    at = content.index(b"IEND") - 4
    data = exif(6).tobytes().removeprefix(b"Exif\0\0")
    pixels, origin = decode(content[:at] + chunk(b"eXIf", data) + content[at:], PixelRules())
    np.testing.assert_array_equal(pixels, np.rot90(np.asarray(blocks()), -1))
    assert origin.turned


@pytest.mark.parametrize("number", [0, 9, 1000])
def test_an_orientation_that_does_not_exist_is_none(number):
    content = saved(blocks(), "JPEG", exif=exif(number))
    assert not decode(content, PixelRules())[1].turned
    assert plain_jpeg_size(content) == (32, 48)


def test_damaged_exif_is_no_orientation():
    content = bytearray(saved(blocks(), "JPEG", exif=exif(6)))
    start = content.index(b"Exif\0\0") + 6
    content[start : start + 8] = b"\xff" * 8
    pixels, origin = decode(bytes(content), PixelRules())
    assert pixels.shape == (32, 48, 3) and not origin.turned


def test_a_turned_jpeg_is_not_stored_as_it_is():
    assert plain_jpeg_size(saved(blocks(), "JPEG", exif=exif(1))) == (32, 48)
    assert plain_jpeg_size(saved(blocks(), "JPEG", exif=exif(6))) is None


def test_alpha_and_16_bits_are_turned_too():
    values = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4) * 2000
    data = exif(8).tobytes().removeprefix(b"Exif\0\0")
    plain = decode_image(deep_png(values), GREEN)
    turned = decode_image(deep_png(values, chunk(b"eXIf", data)), GREEN)
    np.testing.assert_array_equal(turned, np.rot90(plain))


# More than 8 bits


def scaled(values: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(values.astype(float) * 255 / (2**bits - 1)).astype(np.uint8)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("write", [deep_png, tiff])
def test_values_are_scaled_by_their_bits(write, channels, bits):
    values = np.linspace(0, 2**bits - 1, 4 * 6 * channels).astype(np.uint16).reshape(4, 6, channels)
    pixels, origin = decode(write(values), PixelRules(bits=bits))
    np.testing.assert_array_equal(pixels, np.broadcast_to(scaled(values, bits), (4, 6, 3)))
    assert (origin.depth, origin.largest) == ("integer", 2**bits - 1)
    assert bits_for(origin.largest, origin.depth) == bits


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("full", [4095, 65_535])  # some programs scale alpha like the colours
def test_12_bits_with_alpha_are_composited(channels, full):
    random = np.random.default_rng(0)
    values = random.integers(0, 4096, (5, 6, channels)).astype(np.uint16)
    values[:, :, -1] = random.integers(0, full + 1, (5, 6))
    values[0, 0, -1] = full
    pixels, origin = decode(deep_png(values), PixelRules((0, 200, 0), bits=12))
    colours = np.broadcast_to(scaled(values[:, :, :-1], 12), (5, 6, 3)).astype(float)
    share = values[:, :, -1:] / full
    assert np.abs(pixels - (share * colours + (1 - share) * (0, 200, 0))).max() <= 1
    assert origin.transparent and origin.largest == values[:, :, :-1].max()


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_16_bit_colour_tiff_is_turned_once(number):
    values = np.random.default_rng(0).integers(0, 4096, (4, 6, 3)).astype(np.uint16)
    pixels, origin = decode(tiff(values, orientation=number), PixelRules(bits=12))
    turns = {1: 0, 3: 2, 6: -1}[number]
    np.testing.assert_array_equal(pixels, np.rot90(scaled(values, 12), turns))
    assert origin.turned == (number != 1)


@pytest.mark.parametrize("fails", [True, False])
def test_16_bit_colours_that_opencv_cannot_read_have_pillows_8_bits(monkeypatch, fails):
    import cv2

    def read(*_):
        if fails:
            raise cv2.error("damaged")
        return np.zeros((4, 6, 3), np.uint16)  # other values than Pillow's

    values = np.random.default_rng(0).integers(0, 65_536, (4, 6, 3)).astype(np.uint16)
    monkeypatch.setattr(cv2, "imdecode", read)
    np.testing.assert_array_equal(decode_image(deep_png(values)), values >> 8)


def test_larger_values_than_the_range_become_white():
    values = np.array([[[100], [1023], [5000]]], np.uint16)
    assert decode_image(deep_png(values), PixelRules(bits=10))[0, :, 0].tolist() == [25, 255, 255]


def test_a_tiff_of_12_bits_declares_its_range():
    values = np.arange(0, 4096, 100, dtype=np.uint16)[:40].reshape(4, 10, 1)
    pixels, origin = decode(tiff(values, bits=12), PixelRules())
    np.testing.assert_array_equal(pixels[:, :, :1], scaled(values, 12))
    assert (origin.depth, origin.largest) == ("declared", 0)


def test_a_pgm_declares_its_range():
    values = np.arange(0, 1001, 50, dtype=np.uint16)
    content = b"P5\n%d 1\n1000\n" % values.size + values.astype(">u2").tobytes()
    pixels, origin = decode(content, PixelRules())
    assert np.abs(pixels[0, :, 0] - values * 255.0 / 1000).max() <= 0.51
    assert origin.depth == "declared"


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_16_bit_gray_is_scaled_and_not_clipped(image_format):
    values = np.linspace(0, 65_535, 40 * 60).astype(np.uint16).reshape(40, 60)
    pixels = decode_image(saved(Image.fromarray(values), image_format))
    np.testing.assert_array_equal(pixels, np.dstack([scaled(values, 16)] * 3))


def test_16_bit_gray_of_either_byte_order_is_the_same():
    values = np.linspace(0, 65_535, 40 * 60).astype(np.uint16).reshape(40, 60)
    little = saved(Image.fromarray(values), "TIFF")
    big = saved(Image.frombytes("I;16B", (60, 40), values.astype(">u2").tobytes()), "TIFF")
    assert little[:2] == b"II" and big[:2] == b"MM"
    np.testing.assert_array_equal(decode_image(little), decode_image(big))


def test_8_bit_gray_stored_as_16_bits_comes_back():
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16)
    pixels = decode_image(saved(Image.fromarray(gray * 257), "PNG"))
    np.testing.assert_array_equal(pixels, np.dstack([gray] * 3))


@pytest.mark.parametrize("bits", [UNIT, 8, 16])
def test_floating_point_values_are_scaled_by_their_range(bits):
    white = 1.0 if bits == UNIT else 2**bits - 1
    values = (np.linspace(0, 1, 24).reshape(4, 6) * white).astype(np.float32)
    pixels, origin = decode(saved(Image.fromarray(values), "TIFF"), PixelRules(float_bits=bits))
    assert np.abs(pixels[:, :, 0] - values / white * 255).max() <= 0.51
    assert origin.depth == "float" and bits_for(origin.largest, "float") == bits


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.int32([[70_000]]), "beyond 16 bits"),
        (np.int32([[-1]]), "negative or not finite"),
        (np.float32([[-0.5]]), "negative or not finite"),
        (np.float32([[np.nan]]), "negative or not finite"),
        (np.float32([[1e6]]), "beyond 16 bits"),
    ],
)
def test_values_outside_of_every_range_are_refused(values, words):
    with pytest.raises(BadImageError, match=words):
        decode_image(saved(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize(
    ("largest", "rules"),
    [
        ({}, PixelRules()),
        ({"integer": 0}, PixelRules(bits=8)),
        ({"integer": 255}, PixelRules(bits=8)),
        ({"integer": 256}, PixelRules(bits=10)),
        ({"integer": 4096}, PixelRules(bits=14)),
        ({"integer": 65_535}, PixelRules()),
        ({"float": 1.003}, PixelRules()),
        ({"float": 1.5, "integer": 1000}, PixelRules(bits=10, float_bits=8)),
    ],
)
def test_the_range_of_a_data_set_holds_its_largest_value(largest, rules):
    assert with_range_of(PixelRules(), largest) == rules


# HEIC


def heic(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0" * 100


def test_a_heic_photo_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImageError, match="HEIC, which needs `pip install 'rela\\[heif\\]'`"):
        decode_image(heic(b"heic"))


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("by_container", [True, False])
def test_a_heic_photo_is_turned_once(number, by_container):
    plugin = pytest.importorskip("pillow_heif")
    plugin.register_heif_opener()
    tag = exif(number)  # the writer turns by the container if it is given bytes
    content = saved(blocks(), "HEIF", exif=tag.tobytes() if by_container else tag, quality=95)
    assert (b"irot" in content or b"imir" in content) == (by_container and number != 1)
    pixels, origin = decode(content, PixelRules())
    assert pixels.shape == upright(number).shape and origin.format == "HEIF"
    assert np.abs(pixels - upright(number)).mean() < 12
    assert origin.turned == (number != 1)


def test_other_files_of_that_container_are_no_images():
    with pytest.raises(BadImageError, match="not an image that Pillow can read"):
        decode_image(heic(b"isom"))


@pytest.mark.parametrize(
    ("values", "options", "what"),
    [
        (np.zeros((4, 6, 5), np.uint16), {}, "5 channels of 16-bit whole numbers"),
        (
            np.zeros((4, 6, 3), np.float32),
            {"bits": 32, "sample_format": 3},
            "3 channels of 32-bit floating",
        ),
        (
            np.zeros((4, 6, 4), np.float32),
            {"bits": 32, "sample_format": 3},
            "4 channels of 32-bit floating",
        ),
        (
            np.zeros((4, 6, 5), np.float32),
            {"bits": 32, "sample_format": 3, "planes": True},
            "5 channels of 32-bit floating-point numbers",
        ),
        (np.zeros((4, 6, 1)), {"bits": 64, "sample_format": 3}, "1 channel of 64-bit floating"),
    ],
)
def test_a_tiff_of_other_channels_is_refused_with_what_is_read(values, options, what):
    with pytest.raises(BadImageError, match=f"a TIFF of {what}.*; expected gray, RGB or RGBA"):
        decode_image(tiff(values, **options))


def test_a_damaged_tiff_is_still_called_damaged():
    whole = tiff(np.zeros((40, 60, 3), np.uint8), bits=8)
    with pytest.raises(BadImageError, match=r"damaged|not an image") as caught:
        decode_image(whole[:8] + whole[2000:])
    assert "channels" not in str(caught.value)
