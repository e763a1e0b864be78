"""The bytes of an image file → RGB pixels of 8 bits: upright, opaque, scaled by the range of its values.

**Range.** A file of 16 bits often holds 10, 12 or 14 of them and does not say so. One image cannot tell a
dark picture from a narrow range; scaled by its own maximum it would be as bright as any other. So there is
one range for a whole data set: the fewest bits that hold every value in it (`bits_for` of the largest
`Origin.largest`). Files that declare their range (TIFF of 12 bits, PGM, JPEG 2000) are scaled by that.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from rela.errors import ChoiceError, one_line
from rela.sources.image_file import (
    ANIMATED,
    BadImageError,
    check_size,
    has_several_frames,
    opened_image,
    orientation,
)

WHITE = (255, 255, 255)
BITS = (8, 10, 12, 14, 16)  # of whole numbers
_FULL = BITS[-1]
UNIT = 0  # bits of floating-point numbers whose white is 1.0
_OVERSHOOT = 1 / 255  # resampling leaves values a little outside of 0 to 1
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIF_TURNS = (b"irot", b"imir")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANES, _TIFF_EXTRA_SAMPLES, _TIFF_SIGNS = (
    258,
    262,
    284,
    338,
    339,
)
_WHITE_IS_ZERO, _SEPARATE_PLANES, _PREMULTIPLIED, _SIGNED = 0, 2, 1, 2


@dataclass(frozen=True, slots=True)
class PixelRules:
    """How the values of a file become 8 bits.

    - `background`: RGB colour behind transparent pixels; None: alpha is ignored;
    - `bits`: of whole numbers in files of 16 or 32 bits; larger values become white;
    - `float_bits`: of floating-point numbers, or UNIT.
    """

    background: tuple[int, int, int] | None = WHITE
    bits: int = _FULL
    float_bits: int = UNIT


PLAIN_RULES = PixelRules()


@dataclass(frozen=True, slots=True)
class Origin:
    """What an image was before it was stored.

    - `format`: of the file, as Pillow names it; `pixels` for an array;
    - `transparent`: a pixel is not opaque; `turned`: it was turned or mirrored upright;
    - `depth`: empty for 8 bits; `declared` if the file says how many more it has, else `integer` or `float`;
    - `largest`: the largest value, if its range is not declared;
    - `several`: it has further frames or pages, which are not stored.
    """

    format: str
    transparent: bool = False
    turned: bool = False
    depth: str = ""
    largest: float = 0.0
    several: bool = False


@dataclass(frozen=True, slots=True)
class _Deep:
    """Values of more than 8 bits, [height, width] or [height, width, 3], and alpha uint16 [height, width]."""

    values: NDArray[Any]
    alpha: NDArray[np.uint16] | None = None
    declared_bits: int | None = None


def colour_of(text: str) -> tuple[int, int, int] | None:
    """`white`, `#ffffff` or `none` → RGB or None; raises ChoiceError for others."""
    if text == "none":
        return None
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        raise ChoiceError(
            f"--background {one_line(text)}: expected a colour such as white or #808080, or none"
        ) from None


def bits_for(largest: float, depth: str) -> int:
    """The fewest of BITS that hold the value; UNIT for `float` up to 1."""
    if depth == "float" and largest <= 1 + _OVERSHOOT:
        return UNIT
    return next((bits for bits in BITS if largest < 1 << bits), _FULL)


def colour_in_words(colour: tuple[int, int, int] | None) -> str:
    """One text for each colour, which `colour_of` reads: `white`, `none` or `#rrggbb`."""
    if colour is None:
        return "none"
    return "white" if colour == WHITE else "#{:02x}{:02x}{:02x}".format(*colour)


def range_in_words(bits: int) -> str:
    """`10 bits, 1,023 is white`."""
    return "1.0 is white" if bits == UNIT else f"{bits} bits, {(1 << bits) - 1:,} is white"


def with_range_of(rules: PixelRules, largest: Mapping[str, float]) -> PixelRules:
    """`rules` for a data set with these largest values of undeclared range, by `Origin.depth`."""
    bits = {depth: bits_for(value, depth) for depth, value in largest.items()}
    return replace(
        rules,
        bits=bits.get("integer", rules.bits),
        float_bits=bits.get("float", rules.float_bits),
    )


def decode_image(content: bytes, rules: PixelRules = PixelRules()) -> NDArray[np.uint8]:
    """The pixels that `decode` returns."""
    return decode(content, rules)[0]


def decode(content: bytes, rules: PixelRules) -> tuple[NDArray[np.uint8], Origin]:
    """A file's bytes → RGB uint8 [height, width, 3], and what the file was.

    Images of 8 bits with neither alpha nor a rotation in EXIF have the pixels of torchvision's loader. Of an
    animation, or of several pages, the first is taken.

    Raises BadImageError for files that are empty, truncated, too large, not an image, or
    decompression bombs, for values that are negative, not finite or beyond 16 bits, and for TIFFs that Pillow
    reads wrongly.
    """
    with opened_image(content) as image:
        by_reader = _orientation_for_reader(content, image)
        image.load()
        check_size(image)  # again: some formats know their size only once decoded
        # after loading, because a PNG may have its EXIF behind the pixels
        left = orientation(image) if by_reader is None else 1
        deep = _deep(content, image, by_reader or 1)
        if deep is None:
            pixels, transparent = opaque(_with_its_key(content, image), rules.background)
            depth, largest = "", 0.0
        else:
            pixels, transparent = _scaled(deep, rules)
            depth = "float" if deep.values.dtype.kind == "f" else "integer"
            largest = float(deep.values.max())
            if deep.declared_bits is not None:
                depth, largest = "declared", 0.0
        if left != 1:
            pixels = np.asarray(Image.fromarray(pixels).transpose(_TURNS[left]))
        turned = (by_reader or 1) != 1 or left != 1
        several = image.format in ANIMATED and has_several_frames(content)
        return pixels, Origin(image.format or "", transparent, turned, depth, largest, several)


def _orientation_for_reader(content: bytes, image: Image.Image) -> int | None:
    """The orientation that the reader of the format applies while it loads; None if it applies none.

    Pillow turns a TIFF. A HEIC is turned by its container, and its EXIF only repeats that.
    """
    if image.format == "TIFF":
        return orientation(image)
    if image.format == "HEIF" and any(box in content for box in _HEIF_TURNS):
        return image.info.get("original_orientation") or 1
    return None


def opaque(
    image: Image.Image, background: tuple[int, int, int] | None
) -> tuple[NDArray[np.uint8], bool]:
    """RGB pixels, and whether one of them is transparent."""
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")), False
    rgba = image.convert("RGBA")
    lowest, _ = rgba.getchannel("A").getextrema()
    if lowest == 255 or background is None:
        return np.asarray(image.convert("RGB")), lowest != 255
    behind = Image.new("RGBA", rgba.size, background)
    return np.asarray(Image.alpha_composite(behind, rgba).convert("RGB")), True


def _with_its_key(content: bytes, image: Image.Image) -> Image.Image:
    """With the transparent gray of a PNG in 8 bits: Pillow scales pixels of 2 or 4 bits, but not the key."""
    key = image.info.get("transparency")
    if image.format == "PNG" and image.mode in ("1", "L") and isinstance(key, int):
        scale = {1: 255, 2: 85, 4: 17}.get(content[24], 1)
        key = (
            min(key, 1) * scale if image.mode == "1" else key * scale
        )  # 255 already since Pillow 11
        if key > 255:  # of no pixel
            del image.info["transparency"]
        else:
            image.info["transparency"] = key
    return image


def _scaled(deep: _Deep, rules: PixelRules) -> tuple[NDArray[np.uint8], bool]:
    """RGB pixels, and whether one of them is transparent."""
    values, alpha = deep.values, deep.alpha
    if values.dtype.kind == "f":
        white = 1.0 if rules.float_bits == UNIT else float((1 << rules.float_bits) - 1)
        gray = np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)
    else:
        full = (1 << (deep.declared_bits or rules.bits)) - 1
        clipped = np.minimum(values, full).astype(np.uint32)
        gray = ((clipped * 255 + full // 2) // full).astype(np.uint8)
    pixels = gray if gray.ndim == 3 else np.dstack([gray] * 3)
    if alpha is None:
        return pixels, False
    opaque = (
        full if alpha.max() <= full else 65_535
    )  # alpha has the range of the colours, or all bits
    transparent = bool(alpha.min() < opaque)
    if rules.background is None or not transparent:
        return pixels, transparent
    share = (alpha / np.float32(opaque))[:, :, None]
    behind = np.asarray(rules.background, np.float32)
    return np.rint(behind + share * (pixels - behind)).astype(np.uint8), True


def _deep(content: bytes, image: Image.Image, turn: int) -> _Deep | None:
    """The values of an image of more than 8 bits; `turn`: the orientation of a TIFF, which Pillow applied.

    Raises BadImageError for values outside of 0 to 65,535.
    """
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if not np.isfinite(values).all() or values.min() < (
            -_OVERSHOOT if image.mode == "F" else 0
        ):
            raise BadImageError(
                "gray values that are negative or not finite; convert it to 8 or 16 bits"
            )
        if values.max() > 65_535:
            raise BadImageError("gray values beyond 16 bits; convert it to 8 or 16 bits")
        if _WHITE_IS_ZERO in _tiff_tag(image, _TIFF_PHOTOMETRIC):
            if image.mode == "F":
                raise BadImageError("floating-point values whose zero is white; invert them")
            values = 65_535 - values
        return _Deep(values, _keyed(image, values), _declared_bits(image))
    if _SIGNED in _tiff_tag(image, _TIFF_SIGNS) and np.asarray(image).max() > 127:
        raise BadImageError("values that are negative; convert it to 8 or 16 bits")
    if not _has_deep_colours(content, image):
        return None
    if _SEPARATE_PLANES in _tiff_tag(image, _TIFF_PLANES):
        raise BadImageError(
            "colours of 16 bits in separate planes, which Pillow reads wrongly; save its channels interleaved"
        )
    eight = image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB")
    colours = _read_deep_colours(content, np.asarray(eight), turn)
    alpha = colours[:, :, 3] if eight.mode == "RGBA" else _keyed(image, colours)
    return _Deep(colours[:, :, :3], alpha)


def _keyed(image: Image.Image, values: NDArray[Any]) -> NDArray[np.uint16] | None:
    """Alpha of an image with one transparent gray value or colour."""
    key = image.info.get("transparency")
    if not isinstance(key, int | tuple):
        return None
    same = values == np.asarray(key)
    return np.where(same if same.ndim == 2 else same.all(axis=2), 0, 65_535).astype(np.uint16)


def _declared_bits(image: Image.Image) -> int | None:
    """Bits of the full range, if the file says so; Pillow scales PGM and JPEG 2000 to 16."""
    if image.mode == "F":
        return None
    if image.format in ("PPM", "JPEG2000"):
        return 16
    bits = _tiff_tag(image, _TIFF_BITS)
    return bits[0] if bits and bits[0] < 16 else None


def _has_deep_colours(content: bytes, image: Image.Image) -> bool:
    """Whether Pillow has cut the colours of a file from 16 bits to 8."""
    if image.format == "PNG":
        return content[24] == 16
    return (
        image.mode in ("RGB", "RGBA")
        and set(_tiff_tag(image, _TIFF_BITS)) == {16}
        and (_PREMULTIPLIED not in _tiff_tag(image, _TIFF_EXTRA_SAMPLES))
    )


def _tiff_tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    found = getattr(image, "tag_v2", {}).get(tag, ())
    return found if isinstance(found, tuple) else (found,)


def _read_deep_colours(content: bytes, eight: NDArray[np.uint8], turn: int) -> NDArray[np.uint16]:
    """The values of which `eight` are the upper 8 bits, read by OpenCV; `eight` itself if it disagrees."""
    import cv2  # takes 0.1 s

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of unknown tags
    read = None
    with contextlib.suppress(cv2.error):
        read = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if read is not None and read.dtype == np.uint16 and read.ndim == 3:
        values = read.astype(np.uint16, copy=False)
        order = (2, 1, 0, 3)[: eight.shape[2]]
        for turned in (values, _turned(values, turn)):
            found = turned[:, :, [channel for channel in order if channel < turned.shape[2]]]
            if found.shape == eight.shape and np.array_equal(found >> 8, eight):
                return np.ascontiguousarray(found)
    return eight.astype(np.uint16) * 257


def _turned(values: NDArray[np.uint16], turn: int) -> NDArray[np.uint16]:
    """As Pillow turns each channel for this orientation in EXIF."""
    if turn == 1:
        return values
    channels = [Image.fromarray(np.ascontiguousarray(c)) for c in np.moveaxis(values, 2, 0)]
    return np.dstack([np.asarray(c.transpose(_TURNS[turn])) for c in channels])
