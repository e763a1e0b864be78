"""A picture of stored images by class (rela.data.beton.contact_sheet).

Covers: which images it shows and where, against the pixels of the beton; raw and JPEG, small and large; at
most 8 × 8, the same for a seed; images without classes; titles that are hostile or in other letters.
"""

from pathlib import Path

import numpy as np
import pytest
from betons import beton_of, in_memory
from pictures import save_tree

from rela.data.beton.contact_sheet import contact_sheet


def solid(number: int, side: int = 12) -> np.ndarray:
    """An image of one colour that its number gives."""
    return np.full((side, side, 3), (number % 256, 255 - number % 256, number // 256), np.uint8)


def shown(sheet: np.ndarray, row: int, column: int, titled: bool = True) -> np.ndarray:
    """The middle pixel of one place."""
    title = 20 if titled else 0
    return sheet[6 + row * (title + 102) + title + 48, 6 + column * 102 + 48]


def test_each_row_shows_images_of_its_class():
    beton = in_memory([solid(i) for i in range(300)], num_classes=10)
    sheet = np.asarray(contact_sheet(beton, [f"class {i}" for i in range(10)], seed=3))
    assert sheet.shape == (6 + 8 * 122, 6 + 8 * 102, 3)
    colours = {tuple(solid(i)[0, 0]): i for i in range(300)}
    numbers = [[colours[tuple(shown(sheet, r, c))] for c in range(8)] for r in range(8)]
    classes = [{number % 10 for number in row} for row in numbers]
    assert all(len(of) == 1 for of in classes) and len(set().union(*classes)) == 8
    assert len({number for row in numbers for number in row}) == 64  # none twice


def test_a_seed_gives_one_sheet():
    beton = in_memory([solid(i) for i in range(100)], num_classes=2)
    one, same, other = (contact_sheet(beton, ["a", "b"], seed).tobytes() for seed in (0, 0, 1))
    assert one == same != other


def test_images_without_classes_fill_rows():
    beton = in_memory([solid(i) for i in range(11)])
    beton.labels[:] = -1
    sheet = np.asarray(contact_sheet(beton, [], seed=0))
    assert sheet.shape == (6 + 2 * 102, 6 + 8 * 102, 3)
    found = [shown(sheet, i // 8, i % 8, titled=False).tolist() for i in range(11)]
    assert found == [solid(i)[0, 0].tolist() for i in range(11)]


@pytest.mark.parametrize("mode", ["raw", "jpg"])
@pytest.mark.parametrize("size", [(5, 20), (300, 100), (1, 1), (96, 97)])
def test_images_of_any_size_keep_their_shape(tmp_path: Path, mode: str, size: tuple[int, int]):
    beton = beton_of(save_tree(tmp_path / "images", {"0.png": size}), mode)
    sheet = np.asarray(contact_sheet(beton, ["a"], seed=0)).astype(int)
    place = sheet[26:122, 6:102]
    drawn = np.argwhere((place != (216, 216, 216)).any(axis=2))
    height, width = drawn.max(axis=0) - drawn.min(axis=0) + 1
    assert max(height, width) > 48
    assert height / width == pytest.approx(size[0] / size[1], rel=0.04)


@pytest.mark.parametrize("name", ["\x1b[31mred", "猫", "ü" * 500, "", "\udcff", "a\nb" * 1000])
def test_any_title_is_drawn(name: str):
    sheet = np.asarray(contact_sheet(in_memory([solid(0)]), [name], seed=0))
    assert sheet.shape == (6 + 122, 6 + 4 * 102, 3)
    assert (sheet[6:26] != 216).any() == bool(name)
