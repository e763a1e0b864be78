"""The loss on maps (rela.training.map_loss, rela.training.maps), against plain NumPy.

- RoIAlign of a box of a map, and which positions are known;
- the cosine per position; a loss of 0 for a student that gives what is cached;
- int8 with a scale per component: the cosine to the exact components;
- which part of a map a view shows, with and without replayed crops, against the loader's own pixels.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from betons import beton_of
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rela.data.beton.reader import Beton
from rela.data.crops import CropPlan
from rela.data.loader import ViewLoader
from rela.data.views import View
from rela.models.preprocessing import Preprocessing
from rela.training.map_loss import MapLoss, resampled
from rela.training.maps import MapFormat, MapTargets, fitted_images

SIDE, WIDTH, CHANNELS = 5, 3, 8
BOXES = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.1, 0.35, 0.73, 0.9], [-0.31, 0.2, 0.5, 1.4]])


def positions(count: int = 400) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    mixing = random.normal(size=(CHANNELS, CHANNELS)) * np.geomspace(8, 0.5, CHANNELS)
    return (random.normal(size=(count, CHANNELS)) @ mixing + 3).astype(np.float32)


def bilinear(a_map: NDArray[np.float64], y: float, x: float) -> NDArray[np.float64]:
    """The value at (y, x); position (i, j) has its centre at (i + 0.5, j + 0.5), edges are continued."""
    side = len(a_map)
    y, x = (float(np.clip(v - 0.5, 0, side - 1)) for v in (y, x))
    i, j = min(int(y), side - 2), min(int(x), side - 2)
    rows = a_map[i, j : j + 2] * (1 - (y - i)) + a_map[i + 1, j : j + 2] * (y - i)
    return rows[0] * (1 - (x - j)) + rows[1] * (x - j)


@pytest.mark.parametrize("size", [(4, 3), (2, 2), (7, 7)])
def test_a_box_is_resampled_by_the_mean_of_bilinear_samples(size: tuple[int, int]):
    maps = torch.randn(len(BOXES), WIDTH, SIDE, SIDE)
    values, is_known = resampled(maps, BOXES, size)
    for number, (top, left, bottom, right) in enumerate(BOXES.double().tolist()):
        a_map = maps[number].permute(1, 2, 0).double().numpy()
        height, width = (bottom - top) * SIDE / size[0], (right - left) * SIDE / size[1]
        samples = int(np.ceil(SIDE / min(size)))
        for row in range(size[0]):
            for column in range(size[1]):
                y, x = top * SIDE + (row + 0.5) * height, left * SIDE + (column + 0.5) * width
                assert bool(is_known[number, row, column]) == (0 <= y <= SIDE and 0 <= x <= SIDE)
                ys = y - height / 2 + (np.arange(samples) + 0.5) * height / samples
                xs = x - width / 2 + (np.arange(samples) + 0.5) * width / samples
                if min(*ys, *xs) < 0 or max(*ys, *xs) > SIDE:
                    continue  # RoIAlign takes samples far outside for zeros
                expected = np.mean([bilinear(a_map, b, a) for b in ys for a in xs], axis=0)
                found = values[number, :, row, column].numpy()
                np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("dtype", "least"), [("int8", 0.999), ("float16", 0.999999)])
def test_what_is_stored_is_the_projection_at_every_position(dtype: str, least: float):
    fitted = MapFormat.fit(positions(), SIDE, WIDTH, dtype)
    restored = MapFormat.from_bytes(fitted.to_bytes())
    maps = positions(2 * SIDE * SIDE)
    values = restored.project(torch.from_numpy(maps.reshape(2, -1))).numpy()
    exact = fitted.projection.apply(maps).reshape(2, SIDE, SIDE, WIDTH)
    np.testing.assert_allclose(values.reshape(exact.shape), exact, atol=1e-4)
    stored = restored.stored(values)
    assert stored.dtype == dtype and stored.shape == (2, SIDE * SIDE * WIDTH)
    found = restored.restored(torch.from_numpy(stored)).permute(0, 2, 3, 1).double()
    cosine = torch.cosine_similarity(found, torch.from_numpy(exact), dim=-1)
    assert cosine.mean() > least


def test_the_projection_is_fitted_to_a_bounded_number_of_images():
    keys = np.random.default_rng(0).bytes(32 * 10_000)
    images = np.frombuffer(keys, "S32")
    fitted = fitted_images(images, 10)
    assert sorted(images.tolist())[:512] == images[fitted].tolist()
    shuffled = np.random.default_rng(1).permutation(np.concatenate([images, images[:99]]))
    assert images[fitted].tolist() == shuffled[fitted_images(shuffled, 10)].tolist()
    assert fitted_images(images[[2, 0, 2]], 10).size == 2
    assert len(fitted_images(images, 14 * 14 * 2048)) < 200


def test_the_loss_is_one_minus_the_cosine_where_the_map_is_known():
    format_ = MapFormat.fit(positions(), SIDE, WIDTH, "int8")
    loss = MapLoss(WIDTH, format_, weight=1.0, learn_head=True)
    rows = torch.randint(-100, 100, (len(BOXES), SIDE * SIDE * WIDTH), dtype=torch.int8)
    student = torch.randn(len(BOXES), WIDTH, 4, 4)
    cached, is_known = resampled(format_.restored(rows), BOXES, (4, 4))
    predicted = loss.head(student).detach().numpy().transpose(0, 2, 3, 1)[is_known.numpy()]
    wanted = cached.numpy().transpose(0, 2, 3, 1)[is_known.numpy()]
    norms = np.linalg.norm(predicted, axis=-1) * np.linalg.norm(wanted, axis=-1)
    distance = 1 - (predicted * wanted).sum(-1) / norms
    found = loss([student, student], {"maps": [rows] * 2, "boxes": [BOXES] * 2})
    assert found.item() == pytest.approx(distance.mean(), abs=1e-5)
    with torch.no_grad():
        loss.head.weight.copy_(torch.eye(WIDTH)[:, :, None, None])
        loss.head.bias.zero_()
    exact = loss([cached], {"maps": [rows], "boxes": [BOXES]})
    assert exact.item() == pytest.approx(0, abs=1e-5)


# What a view shows: images whose red and green are the row and the column of a pixel


@pytest.fixture
def gradients(tmp_path: Path) -> Beton:
    for number, (height, width) in enumerate([(60, 90), (90, 60), (64, 64)]):
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([y * 2, x * 2, np.zeros_like(x)], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return beton_of(tmp_path)


VIEW = View(16, (0.4, 1.0), flip_probability=0.0, jitter_probability=0.0, gray_probability=0.0)


def places(view: Tensor) -> NDArray[np.float64]:
    """Row and column in the stored image of every pixel of a view [3, S, S]."""
    return view[:2].permute(1, 2, 0).double().numpy() / 2


def test_the_box_of_a_view_says_what_it_shows_of_the_central_crop(gradients: Beton):
    preprocessing = Preprocessing(48, 40)
    maps = MapTargets(torch.arange(3)[:, None], None, None, preprocessing)  # type: ignore[arg-type]
    loader = ViewLoader(gradients, (VIEW, VIEW), 3, maps=maps)
    [batch] = loader
    windows = maps.window(gradients)
    for view, boxes, rows in zip(batch["views"], batch["boxes"], batch["maps"], strict=True):
        assert rows[:, 0].tolist() == batch["index"].tolist()
        for pixels, box, index in zip(view, boxes.double().numpy(), batch["index"], strict=True):
            top, left, height, width = windows[index]
            y, x = (places(pixels)[8, 8] + places(pixels)[7, 7]) / 2 + 0.5  # the centre
            centre = (y - top) / height, (x - left) / width
            np.testing.assert_allclose(centre, (box[:2] + box[2:]) / 2, atol=0.02)


def test_a_replayed_crop_has_a_map_of_its_own(gradients: Beton):
    crops = CropPlan(4).draw(gradients)
    maps = MapTargets(torch.arange(12)[:, None], None, crops, Preprocessing(48, 40))  # type: ignore[arg-type]
    [batch] = ViewLoader(gradients, (VIEW, VIEW), 3, crops=crops, maps=maps)
    for view, boxes, rows in zip(batch["views"], batch["boxes"], batch["maps"], strict=True):
        assert boxes.tolist() == [[0, 0, 1, 1]] * 3
        for pixels, row in zip(view, rows[:, 0].tolist(), strict=True):
            _, left, _, width, is_mirrored = crops[row // 4, row % 4].astype(int)
            start, end = (left + width, left) if is_mirrored else (left, left + width)
            columns = places(pixels)[8, :, 1]
            assert columns[0] == pytest.approx(start, abs=4) and columns[-1] == pytest.approx(
                end, abs=4
            )
