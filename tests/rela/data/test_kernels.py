"""Compiled kernels.

Covers: `resample` against Pillow's two passes, horizontal then vertical, bit for bit;
`load_center_crops` against torchvision's Resize and CenterCrop on PIL images, bit for bit; colour
operations against `torchvision.transforms.v2` within one level, and the blur also against scipy;
rendering a view from given parameters; `jpeg_size` and `decode` against PIL.
"""

import io
from itertools import permutations

import numpy as np
import pytest
import torch
from betons import in_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import picture
from PIL import Image
from scipy import ndimage
from torchvision import transforms
from torchvision.transforms.v2 import functional as v2

from rela.data import views
from rela.data.ffcv_format import MODE_JPEG, MODE_RAW
from rela.data.kernels import colour, decode, draws, resample, samples

PILLOW = {resample.BILINEAR: Image.Resampling.BILINEAR, resample.BICUBIC: Image.Resampling.BICUBIC}
INTERPOLATIONS = pytest.mark.parametrize("interpolation", PILLOW, ids=["bilinear", "bicubic"])


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


# Resizing


def resized(image: np.ndarray, box: tuple, size: tuple, window: tuple, interpolation: int):
    """Our `resample`: box (top, left, height, width), size and window (top, left, height, width)."""
    out = np.empty((window[2], window[3], 3), np.uint8)
    resample.resample(image, *box, *size, window[0], window[1], interpolation, out)
    return out


def resized_by_pillow(image: np.ndarray, box: tuple, size: tuple, interpolation: int):
    """Pillow's horizontal pass, then its vertical one; some versions may swap them in one call."""
    top, left, height, width = box
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    cut = cut.resize((size[1], height), PILLOW[interpolation])
    return np.asarray(cut.resize((size[1], size[0]), PILLOW[interpolation]))


@INTERPOLATIONS
@settings(deadline=None, max_examples=150)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_any_part_resized_to_any_size_is_pillows(interpolation, data, seed):
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = (
        top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    )  # fmt: skip
    size = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    image = noise(seed, height, width)
    np.testing.assert_array_equal(
        resized(image, box, size, (0, 0, *size), interpolation),
        resized_by_pillow(image, box, size, interpolation),
    )


@INTERPOLATIONS
@pytest.mark.parametrize("size", [(224, 224), (32, 32), (256, 341), (1, 1), (375, 500), (600, 7)])
@pytest.mark.parametrize("make", [picture, noise])
def test_a_photo_resized_is_pillows(interpolation, size, make):
    image, box = make(3, 375, 500), (0, 0, 375, 500)
    expected = Image.fromarray(image).resize((size[1], size[0]), PILLOW[interpolation])
    found = resized(image, box, size, (0, 0, *size), interpolation)
    np.testing.assert_array_equal(found, np.asarray(expected))


@INTERPOLATIONS
def test_black_and_white_edges_do_not_overflow(interpolation):
    image = np.zeros((40, 40, 3), np.uint8)
    image[::2, 10:30] = 255
    for size in ((97, 83), (13, 17)):
        np.testing.assert_array_equal(
            resized(image, (0, 0, 40, 40), size, (0, 0, *size), interpolation),
            resized_by_pillow(image, (0, 0, 40, 40), size, interpolation),
        )


@INTERPOLATIONS
def test_a_window_is_cut_from_the_whole(interpolation):
    image, box, size = noise(0, 50, 70), (5, 8, 40, 55), (33, 90)
    whole = resized_by_pillow(image, box, size, interpolation)
    for y, x, height, width in [(0, 0, 10, 10), (23, 80, 10, 10), (7, 31, 20, 40), (0, 0, 33, 90)]:
        window = resized(image, box, size, (y, x, height, width), interpolation)
        np.testing.assert_array_equal(window, whole[y : y + height, x : x + width])


@INTERPOLATIONS
@pytest.mark.parametrize(("resize", "crop"), [(32, 32), (36, 32), (37, 32), (36, 31), (20, 5)])
def test_center_crops_are_torchvisions(interpolation, resize, crop):
    sizes = [(40, 60), (60, 40), (41, 57), (57, 41), (36, 36), (36, 100), (9, 200), (20, 23)]
    images = [noise(i, *size) for i, size in enumerate(sizes)]
    mode = (transforms.InterpolationMode.BILINEAR, transforms.InterpolationMode.BICUBIC)
    theirs = transforms.Compose(
        [transforms.Resize(resize, mode[interpolation]), transforms.CenterCrop(crop)]
    )
    rows = np.arange(len(images))[::-1].copy()
    out = np.empty((len(images), crop, crop, 3), np.uint8)
    status = np.full(len(images), 255, np.uint8)
    beton = in_memory(images)
    samples.load_center_crops(*beton.storage(), rows, resize, interpolation, out, 0, status)
    assert (status == decode.OK).all()
    for row, found in zip(rows, out, strict=True):
        expected = np.asarray(theirs(Image.fromarray(images[row])))
        np.testing.assert_array_equal(found, expected, f"image of size {sizes[row]}")


@INTERPOLATIONS
def test_center_crops_of_tall_images_are_resized_horizontally_first(interpolation):
    for height, width in ((100, 41), (300, 60)):
        image = noise(height, height, width)
        full = int(36 * height / width)
        whole = resized_by_pillow(image, (0, 0, height, width), (full, 36), interpolation)
        expected = np.asarray(transforms.CenterCrop(32)(Image.fromarray(whole)))
        top, left = round((full - 32) / 2), round((36 - 32) / 2)
        box, window = (0, 0, height, width), (top, left, 32, 32)
        found = resized(image, box, (full, 36), window, interpolation)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("make", [noise, picture])
def test_raw_images_are_not_modified(make):
    beton = in_memory([make(i, 20, 30) for i in range(4)])
    before, view = beton.data.copy(), views.View(16, blur_probability=0.5, solarize_probability=0.5)
    out = np.empty(4 * 2 * 16 * 16 * 3, np.uint8)
    status = np.full(4, 255, np.uint8)
    samples.load_views(
        *beton.storage(), np.arange(4), np.uint64(0), np.uint64(0),
        views.specification((view, view)), np.empty((0, 0, 5), np.uint16), out,
        np.array([0, out.size // 2]), 0, status,
    )  # fmt: skip
    assert (status == decode.OK).all()
    np.testing.assert_array_equal(beton.data, before)


# Colour


def colourful() -> list[np.ndarray]:
    """Noise, a smooth picture, gray, and all corners of the colour cube."""
    corners = np.array([[(i & 1, i >> 1 & 1, i >> 2 & 1) for i in range(8)]] * 8, np.uint8) * 255
    gray = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    return [noise(0, 40, 50), picture(1, 37, 24), gray, corners, noise(2, 1, 1)]


def in_place(operation, image: np.ndarray, *arguments) -> np.ndarray:
    changed = image.copy()
    operation(changed, *arguments)
    return changed


def by_torchvision(operation, image: np.ndarray, *arguments) -> np.ndarray:
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    return operation(tensor, *arguments).permute(1, 2, 0).numpy()


def assert_within_a_level(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found.astype(int) - expected).max() <= 1


COLOURFUL = pytest.mark.parametrize(
    "image", colourful(), ids=["noise", "smooth", "gray", "corners", "pixel"]
)


@COLOURFUL
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, factors) for name in ("brightness", "contrast", "saturation")
          for factors in (0.0, 0.2, 0.73, 1.0, 1.31, 1.8, 2.5)),
        *(("hue", shift) for shift in (-0.5, -0.2, -0.07, 0.0, 0.013, 0.1, 0.31, 0.5)),
    ],
)  # fmt: skip
def test_colour_adjustments_are_torchvisions(image, name, arguments):
    ours, theirs = getattr(colour, f"adjust_{name}"), getattr(v2, f"adjust_{name}")
    expected = by_torchvision(theirs, image, arguments)
    assert_within_a_level(in_place(ours, image, arguments), expected)


@COLOURFUL
def test_gray_and_solarize_are_torchvisions(image):
    gray = by_torchvision(v2.rgb_to_grayscale, image, 3)
    assert_within_a_level(in_place(colour.to_gray, image), gray)
    solarized = by_torchvision(v2.solarize, image, 128)
    np.testing.assert_array_equal(in_place(colour.solarize, image), solarized)


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.5, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("size", [(32, 32), (20, 33), (9, 9), (5, 12), (2, 2), (1, 1)])
def test_blur_is_torchvisions_and_scipys(sigma, size):
    image = noise(4, *size)
    radius = colour.blur_radius(sigma, min(size))
    assert radius == min(int(4 * sigma + 0.5), min(size) - 1)
    found = in_place(colour.gaussian_blur, image, sigma)
    expected = by_torchvision(v2.gaussian_blur, image, [2 * radius + 1] * 2, [sigma] * 2)
    assert_within_a_level(found, expected)
    exact = ndimage.gaussian_filter(
        image.astype(float), (sigma, sigma, 0), mode="mirror", radius=(radius, radius, 0)
    )
    assert np.abs(found - exact).max() <= 0.51


# Rendering


def parameters_of(**values: float) -> np.ndarray:
    """Parameters of a whole 30×40 image with no colour operation, but for those given."""
    out = np.zeros(draws.PARAMETER_COLUMNS)
    out[draws.HEIGHT], out[draws.WIDTH], out[draws.ORDER] = 30, 40, -1
    for name, value in values.items():
        out[getattr(draws, name)] = value
    return out


def rendered(image: np.ndarray, size: int, **values: float) -> np.ndarray:
    out = np.empty((size, size, 3), np.uint8)
    samples.render_view(image, parameters_of(**values), out)
    return out


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("size", [60, 22, 17, 13, 9, 1])  # 2, 3, 4, 5, 7 and 29 taps
def test_a_view_is_the_box_resized_and_flipped(flip, size):
    image = noise(0, 30, 40)
    found = rendered(image, size, TOP=3, LEFT=7, HEIGHT=20, WIDTH=29, FLIP=flip)
    expected = resized_by_pillow(image, (3, 7, 20, 29), (size, size), resample.BILINEAR)
    np.testing.assert_array_equal(found, expected[:, ::-1] if flip else expected)


def test_the_24_codes_are_the_24_orders_of_the_colour_operations():
    image = noise(0, 30, 40)
    strengths = {"BRIGHTNESS": 1.5, "CONTRAST": 0.6, "SATURATION": 1.7, "HUE": 0.2}
    found = [rendered(image, 12, ORDER=code, **strengths).tobytes() for code in range(24)]
    expected = set()
    for names in permutations(strengths):
        view = rendered(image, 12)
        for name in names:
            getattr(colour, f"adjust_{name.lower()}")(view, strengths[name])
        expected.add(view.tobytes())
    assert len(expected) == 24 and set(found) == expected


def test_gray_blur_and_solarize_follow_in_this_order():
    image = noise(0, 30, 40)
    expected = rendered(image, 12)
    for operation, arguments in (
        (colour.to_gray, ()), (colour.gaussian_blur, (0.8,)), (colour.solarize, ())
    ):  # fmt: skip
        operation(expected, *arguments)
    np.testing.assert_array_equal(rendered(image, 12, GRAY=1, SIGMA=0.8, SOLARIZE=1), expected)


# JPEG


def jpeg(image: np.ndarray, mode: str = "RGB", **options) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", **options)
    return np.frombuffer(file.getvalue(), np.uint8).copy()


KINDS_OF_JPEG = [
    {}, {"mode": "L"}, {"mode": "CMYK"}, {"progressive": True}, {"optimize": True},
    {"subsampling": 0}, {"restart_marker_blocks": 1}, {"comment": b"x" * 60_000},
    {"exif": b"Exif\0\0" + bytes(3000)}, {"icc_profile": bytes(200_000)}, {"dpi": (300, 300)},
]  # fmt: skip


@pytest.mark.parametrize("options", KINDS_OF_JPEG, ids=lambda options: ",".join(options) or "plain")
@pytest.mark.parametrize("size", [(1, 1), (17, 300), (301, 16)])
def test_size_is_found_in_every_kind_of_jpeg(options, size):
    assert decode.jpeg_size(jpeg(picture(0, *size), **options)) == size


def test_fill_bytes_before_a_marker_are_skipped():
    data = jpeg(picture(0, 20, 30))
    filled = np.concatenate([data[:2], np.full(5, 0xFF, np.uint8), data[2:]])
    assert Image.open(io.BytesIO(filled.tobytes())).size == (30, 20)
    assert decode.jpeg_size(filled) == (20, 30)


def test_size_of_a_cut_jpeg_is_right_or_unknown():
    data = jpeg(picture(0, 20, 30))
    found = [decode.jpeg_size(data[:length].copy()) for length in range(len(data) + 1)]
    assert set(found) == {(0, 0), (20, 30)}
    assert found == sorted(found)  # unknown first, known ever after


@settings(deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_have_a_size_or_none(content, with_marker):
    data = np.frombuffer((b"\xff\xd8" if with_marker else b"") + content, np.uint8).copy()
    height, width = decode.jpeg_size(data)
    assert 0 <= height < 65_536 and 0 <= width < 65_536
    assert with_marker or content[:2] == b"\xff\xd8" or (height, width) == (0, 0)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"quality": 30}])
def test_decoded_pixels_are_pils_but_for_rounding(options):
    data = jpeg(picture(0, 45, 70), **options)
    out = np.zeros(45 * 70 * 3, np.uint8)
    assert decode.decode(data, MODE_JPEG, 45, 70, out) == decode.OK
    expected = np.asarray(Image.open(io.BytesIO(data.tobytes())).convert("RGB")).ravel()
    difference = np.abs(out.astype(int) - expected)
    assert difference.max() <= 8 and difference.mean() < 1.5


def test_an_unexpected_size_is_not_decoded():
    data = jpeg(picture(0, 45, 70))
    out = np.full(50 * 80 * 3, 9, np.uint8)
    for height, width in ((45, 69), (46, 70), (70, 45), (0, 0)):
        assert decode.decode(data, MODE_JPEG, height, width, out) == decode.WRONG_SIZE
        assert decode.decode(data, MODE_RAW, height, width, out) == decode.WRONG_SIZE
    assert (out == 9).all()
