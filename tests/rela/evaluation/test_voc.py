"""Reading folders in the layout of Pascal VOC (rela.evaluation.voc).

Covers: palette masks read by index, against Pillow; stretching; where the folder may lie; every way
in which a file can be missing or odd, each with one line that names it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from PIL import Image

from rela.errors import ChoiceError, DataError
from rela.evaluation.voc import LabelledImage, open_voc, read_labelled_image

PALETTE = [(37 * i) % 256 for i in range(768)]
NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR


def write_mask(path: Path, values: np.ndarray) -> None:
    mask = Image.fromarray(values.astype(np.uint8), "L").convert("P")
    mask.putdata(values.ravel().tolist())
    mask.putpalette(PALETTE)
    mask.save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three train images, two val images, 20×30 pixels, classes 0 to 3 and void."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split, numbers in (("train", (0, 1, 2)), ("val", (3, 4))):
        names = [f"2007_{i:06d}" for i in numbers]
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names) + "\n")
        for i, name in zip(numbers, names, strict=True):
            Image.fromarray(picture(i, 20, 30)).save(root / f"JPEGImages/{name}.jpg")
            values = np.random.default_rng(i).choice([0, 1, 2, 3, 255], (20, 30))
            write_mask(root / f"SegmentationClass/{name}.png", values)
    return root


@pytest.mark.parametrize("where", [".", "..", "../.."])
def test_the_folder_may_lie_in_a_voc_devkit(voc: Path, where: str) -> None:
    folder = open_voc(voc / where)
    assert [len(folder.train), len(folder.val)] == [3, 2]
    assert folder.val[0].mask.resolve() == voc / "SegmentationClass/2007_000003.png"
    assert folder.digests() == open_voc(voc).digests()


def test_masks_are_indices_of_the_palette(voc: Path) -> None:
    for i, pair in enumerate(open_voc(voc).train):
        expected = np.random.default_rng(i).choice([0, 1, 2, 3, 255], (20, 30))
        image = Image.open(pair.image)
        whole = Image.fromarray(expected.astype(np.uint8))
        for size in (16, 40):
            pixels, mask = read_labelled_image(pair, size, BILINEAR, 21)
            np.testing.assert_array_equal(pixels, np.asarray(image.resize((size, size), BILINEAR)))
            np.testing.assert_array_equal(mask, np.asarray(whole.resize((size, size), NEAREST)))


def test_another_byte_is_another_digest(voc: Path) -> None:
    before = open_voc(voc).digests()
    write_mask(voc / "SegmentationClass/2007_000004.png", np.zeros((20, 30)))
    after = open_voc(voc).digests()
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_another_folder_is_refused_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(ChoiceError, match=r"is missing; expected JPEGImages/NAME\.jpg, Seg"):
        open_voc(tmp_path)


def _unlink(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_unlink("ImageSets/Segmentation/val.txt"), r"val\.txt is missing; expected JPEGImages"),
        (
            _unlink("JPEGImages/2007_000001.jpg"),
            r"2007_000001\.jpg is missing but listed in .*train\.txt",
        ),
        (
            _unlink("SegmentationClass/2007_000003.png"),
            r"000003\.png is missing but listed in .*val\.txt",
        ),
        (lambda r: (r / "ImageSets/Segmentation/train.txt").write_text("\n"), "lists no image"),
        (
            lambda r: (r / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe"),
            "is not a text file",
        ),
    ],
)
def test_missing_files_are_named(voc: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(voc)
    with pytest.raises(DataError, match=message):
        open_voc(voc)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.image.write_bytes(b""), r"\.jpg: empty file"),
        (lambda p: p.image.write_bytes(p.image.read_bytes()[:200]), r"\.jpg: damaged"),
        (lambda p: p.mask.write_text("no mask"), r"\.png is not a readable mask"),
        (lambda p: p.mask.write_bytes(p.mask.read_bytes()[:150]), r"\.png is not a readable mask"),
        (lambda p: write_mask(p.mask, np.zeros((30, 20))), "has 20×30 pixels, its image 30×20"),
        (
            lambda p: write_mask(p.mask, np.full((20, 30), 21)),
            r"contains the class 21; expected 0 to 20",
        ),
        (lambda p: write_mask(p.mask, np.full((20, 30), 254)), "contains the class 254"),
        (
            lambda p: Image.new("RGB", (30, 20)).save(p.mask),
            "is a mask of mode RGB; expected a pal",
        ),
    ],
)
def test_odd_files_are_named(
    voc: Path, spoil: Callable[[LabelledImage], None], message: str
) -> None:
    pair = open_voc(voc).train[0]
    spoil(pair)
    with pytest.raises(DataError, match=message):
        read_labelled_image(pair, 16, BILINEAR, 21)


def test_more_classes_are_welcome_when_announced(voc: Path) -> None:
    pair = open_voc(voc).train[0]
    write_mask(pair.mask, np.full((20, 30), 200))
    assert (read_labelled_image(pair, 16, BILINEAR, 201)[1] == 200).all()
