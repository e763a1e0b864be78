"""A picture of some images of a beton, as they are stored, by class or as asked."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from rela.data.beton.reader import Beton
from rela.data.ffcv_format import MODE_RAW
from rela.errors import one_line

MAX_IMAGES = 8  # in a row
_MAX_CLASSES = 8
_MIN_COLUMNS = 4  # so that titles have room
_MAX_LETTERS = 200
_SIDE, _GAP, _TITLE = 96, 6, 20  # pixels
_INK, _PAPER = "#222222", "#d8d8d8"  # gray, so that white images have an edge


@dataclass(frozen=True)
class Row:
    """A titled row of a sheet: (beton, row of it, words below the image) of each image."""

    title: str
    images: Sequence[tuple[Beton, int, str]]


def contact_sheet(beton: Beton, class_names: Sequence[str], seed: int) -> Image.Image:
    """At most 8 classes × 8 images drawn by `seed`, a titled row for each class.

    Without classes, at most 64 images. The generator is Python's: importing NumPy's takes 0.05 s.
    """
    drawn = _drawn(Random(seed), beton.labels, len(class_names))
    return sheet_of(
        [
            Row(class_names[label] if class_names else "", [(beton, row, "") for row in found])
            for label, found in drawn
        ],
        titled=bool(class_names),
    )


def sheet_of(
    rows: Sequence[Row], titled: bool = True, captioned: bool = False, most: int = MAX_IMAGES
) -> Image.Image:
    """A picture of these rows, RGB; of each, at most `most` images are shown."""
    columns = max(_MIN_COLUMNS, *(len(row.images[:most]) for row in rows))
    above, below = _TITLE * titled, _TITLE * captioned
    height = above + _SIDE + below + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (_SIDE + _GAP), _GAP + len(rows) * height), _PAPER)
    pen, font = ImageDraw.Draw(sheet), _font()
    for number, row in enumerate(rows):
        top = _GAP + number * height
        if titled:
            pen.text((_GAP, top), _fitting(row.title, font, sheet.width - 2 * _GAP), _INK, font)
        for column, (beton, index, words) in enumerate(row.images[:most]):
            left = _GAP + column * (_SIDE + _GAP)
            sheet.paste(_thumbnail(beton, index), (left, top + above))
            if words:
                pen.text((left, top + above + _SIDE), _fitting(words, font, _SIDE), _INK, font)
    return sheet


def _drawn(
    random: Random, labels: NDArray[np.int64], num_classes: int
) -> list[tuple[int, list[int]]]:
    """(class, rows of the beton) for each row of the sheet."""
    if num_classes == 0:
        found = _some(random, np.arange(labels.size), _MAX_CLASSES * MAX_IMAGES)
        return [(-1, found[i : i + MAX_IMAGES]) for i in range(0, len(found), MAX_IMAGES)]
    classes = _some(random, np.unique(labels), _MAX_CLASSES)
    return [(c, _some(random, np.flatnonzero(labels == c), MAX_IMAGES)) for c in classes]


def _some(random: Random, of: NDArray[np.int64], count: int) -> list[int]:
    """At most `count` of the values, in their order."""
    chosen = sorted(random.sample(range(of.size), min(count, of.size)))
    return [int(of[index]) for index in chosen]


def _thumbnail(beton: Beton, row: int) -> Image.Image:
    """One stored image, centred on paper: small ones are enlarged by whole pixels."""
    start, size = int(beton.pointers[row]), int(beton.sizes[row])
    data = bytes(beton.data[start : start + size])
    if beton.modes[row] == MODE_RAW:
        shape = int(beton.widths[row]), int(beton.heights[row])
        image = Image.frombytes("RGB", shape, data)
    else:
        with Image.open(io.BytesIO(data)) as file:
            file.draft("RGB", (_SIDE, _SIDE))
            image = file.convert("RGB")
    factor = _SIDE // max(image.size)
    if factor > 1:
        image = image.resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
    image.thumbnail((_SIDE, _SIDE))
    paper = Image.new("RGB", (_SIDE, _SIDE), _PAPER)
    paper.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
    return paper


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14 if features.check("freetype2") else None)


def _fitting(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The name in the letters of the font, which are Latin, cut to the width in pixels."""
    text = one_line(name[:_MAX_LETTERS]).encode("latin-1", "backslashreplace").decode("latin-1")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
