"""Reading a segmentation data set in the layout of Pascal VOC 2012 (Everingham et al., IJCV 2015).

JPEGImages/NAME.jpg
SegmentationClass/NAME.png                       palette images: class = palette index, 255 = void
ImageSets/Segmentation/train.txt  val.txt        a NAME per line
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rela.errors import ChoiceError, DataError
from rela.pipeline.files import read_regular
from rela.pipeline.fingerprint import file_sha256
from rela.sources.image_file import BadImageError, opened_image, read_image_file
from rela.sources.pixels import decode_image

VOID = 255
SPLITS = ("train", "val")
_LISTS = Path("ImageSets/Segmentation")
_LAYOUT = "JPEGImages/NAME.jpg, SegmentationClass/NAME.png, ImageSets/Segmentation/{train,val}.txt"
_INSIDE = (".", "VOCdevkit/VOC2012", "VOC2012")
_INDEX_MODES = ("P", "L")


@dataclass(frozen=True)
class LabelledImage:
    """Paths of an image and its mask."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class VocFolder:
    """A folder in this layout, whose files exist."""

    root: Path
    train: tuple[LabelledImage, ...]
    val: tuple[LabelledImage, ...]

    def digests(self) -> list[list[str]]:
        """SHA-256 of every file's bytes in the order of the lists, one list per split."""
        return [
            [file_sha256(path) for pair in pairs for path in (pair.image, pair.mask)]
            for pairs in (self.train, self.val)
        ]


def open_voc(path: Path) -> VocFolder:
    """The VOC2012 folder `path`, or the one inside it.

    Raises ChoiceError for any other folder, and DataError naming the first listed file that is missing.
    """
    roots = [path / inside for inside in _INSIDE]
    root = next((r for r in roots if (r / _LISTS).is_dir()), None)
    if root is None:
        raise ChoiceError(
            f"{path} is not in the layout of Pascal VOC 2012: {path / _LISTS} is missing; expected "
            f"{_LAYOUT}, in the folder itself or in its VOCdevkit/VOC2012"
        )
    train, val = (_read_list(root, split) for split in SPLITS)
    return VocFolder(root, train, val)


def _read_list(root: Path, split: str) -> tuple[LabelledImage, ...]:
    path = root / _LISTS / f"{split}.txt"
    try:
        names = read_regular(path).decode("utf-8").split()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; expected {_LAYOUT}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file; expected the name of an image per line"
        ) from error
    pairs = tuple(
        LabelledImage(root / f"JPEGImages/{name}.jpg", root / f"SegmentationClass/{name}.png")
        for name in names
    )
    if odd := [name for name in names if name.startswith("/") or ".." in Path(name).parts]:
        raise DataError(
            f"{path} lists {odd[0]!r}, outside of {root}; expected the name of an image"
        )
    if not pairs:
        raise DataError(f"{path} lists no image; expected the name of an image per line")
    for pair in pairs:
        for file in (pair.image, pair.mask):
            if not file.is_file():
                raise DataError(f"{file} is missing but listed in {path}; expected {_LAYOUT}")
    return pairs


def read_labelled_image(
    pair: LabelledImage, size: int, interpolation: Image.Resampling, num_classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image [size, size, 3] (RGB) and mask [size, size], both resized, the mask by nearest pixel.

    Raises DataError naming the file if it cannot be decoded, if the mask is not a palette or gray image
    of the image's size, or if its values are neither below `num_classes` nor 255.
    """
    try:
        pixels = decode_image(read_image_file(pair.image))
    except BadImageError as error:
        raise DataError(f"{pair.image}: {error}") from error
    mask = _read_mask(pair.mask)
    height, width = pixels.shape[:2]
    if mask.size != (width, height):
        raise DataError(
            f"{pair.mask} has {mask.width}×{mask.height} pixels, its image {width}×{height}; expected "
            "the same size"
        )
    values = np.unique(np.asarray(mask))
    odd = values[(values >= num_classes) & (values != VOID)]
    if odd.size:
        raise DataError(
            f"{pair.mask} contains the class {odd[0]}; expected 0 to {num_classes - 1}, or {VOID} for void; "
            "add --voc-classes N if there are more classes"
        )
    stretched = Image.fromarray(pixels).resize((size, size), interpolation)
    small_mask = mask.resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(stretched), np.asarray(small_mask)


def _read_mask(path: Path) -> Image.Image:
    try:
        with opened_image(read_image_file(path)) as mask:
            mask.load()
    except BadImageError as error:
        raise DataError(
            f"{path} is not a readable mask; expected a PNG whose palette index is the class"
        ) from error
    if mask.mode not in _INDEX_MODES:
        raise DataError(
            f"{path} is a mask of mode {mask.mode}; expected a palette PNG (mode P) whose palette index is "
            f"the class, {VOID} for void"
        )
    return mask
