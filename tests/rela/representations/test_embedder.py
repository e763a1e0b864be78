"""Features through beton and Embedder against the plain way: Pillow, torchvision's preset, the model.

A random network gives every image nearly the same features, so that plain cosines say little; the
centred ones, of features minus their mean over the images, notice small differences of pixels.

- losslessly stored images, enlarged and shrunk, wide and tall, bilinear and bicubic: centred cosines of
  at least 0.999;
- images stored as JPEG, which FFCV's decoder rounds otherwise than Pillow's: plain cosines of at least
  0.99, centred ones of 0.97;
- rows come in the order asked for, whatever the batch size; a damaged image is named;
- parts one after the other are what each is on its own, up to the damaged one;
- the bytes of a row do not depend on the other rows, on their number or on their order.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models as tv
from betons import beton_of
from pictures import MakeTree
from PIL import Image
from torch import nn

from rela.data.beton.reader import Beton, open_beton
from rela.data.crops import CropPlan
from rela.errors import ChoiceError, DataError
from rela.models.backbones import build_backbone
from rela.models.preprocessing import Preprocessing
from rela.representations.embedder import Embedder, choose_device
from rela.representations.engines import Engine

SIZES = [(32, 32), (32, 32), (32, 48), (56, 40), (300, 260), (250, 400), (224, 224), (97, 131)]
NUM_IMAGES = len(SIZES)


@pytest.fixture
def folder(make_tree: MakeTree) -> Path:
    return make_tree({f"{i}.png": size for i, size in enumerate(SIZES)})


def preprocessing_of(preset: object) -> Preprocessing:
    return Preprocessing(
        preset.resize_size[0], preset.crop_size[0], preset.interpolation.value,
        tuple(preset.mean), tuple(preset.std),
    )  # fmt: skip


def plain_features(folder: Path, preset: Callable, backbone: nn.Module) -> np.ndarray:
    images = [preset(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())]
    with torch.inference_mode():
        return torch.cat([backbone(image[None]) for image in images]).numpy()


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return (found * expected).sum(axis=1) / norms


def centred_cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return cosines(found - expected.mean(axis=0), expected - expected.mean(axis=0))


PRESETS = {
    "bilinear": ("resnet18", tv.ResNet18_Weights.DEFAULT.transforms()),
    "bicubic": ("mobilenet_v3_small", tv.EfficientNet_B0_Weights.DEFAULT.transforms()),
}


@pytest.mark.parametrize("interpolation", PRESETS)
def test_lossless_images_have_the_plain_features(folder: Path, interpolation: str):
    name, preset = PRESETS[interpolation]
    assert preset.interpolation.value == interpolation
    backbone = build_backbone(name, seed=0).eval()
    expected = plain_features(folder, preset, backbone)
    embedder = Embedder(backbone, preprocessing_of(preset), "cpu", batch_size=3)
    found = embedder(beton_of(folder), np.arange(NUM_IMAGES))
    assert found.dtype == np.float32
    assert centred_cosines(found, expected).min() >= 0.999


@pytest.mark.parametrize("source", ["png", "jpg"])
def test_jpeg_images_have_nearly_the_plain_features(folder: Path, source: str):
    if source == "jpg":
        for path in list(folder.iterdir()):
            Image.open(path).save(path.with_suffix(".jpg"), quality=90)
            path.unlink()
    preset = tv.ResNet18_Weights.DEFAULT.transforms()
    backbone = build_backbone("resnet18", seed=0).eval()
    expected = plain_features(folder, preset, backbone)
    beton = beton_of(folder, "jpg", jpeg_quality=95)
    assert (beton.modes == 0).all()
    found = Embedder(backbone, preprocessing_of(preset), "cpu")(beton, np.arange(NUM_IMAGES))
    assert cosines(found, expected).min() >= 0.99
    assert centred_cosines(found, expected).min() >= 0.97


def pixel_embedder(batch_size: int) -> Embedder:
    """The features are the pixels: no preprocessing but the resize, no network."""
    whole = Preprocessing(32, 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Embedder(nn.Flatten(), whole, "cpu", batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_rows_come_in_the_requested_order(folder: Path, batch_size: int):
    rows = np.array([5, 0, 7, 1, 0])
    counts: list[int] = []
    found = pixel_embedder(batch_size)(beton_of(folder), rows, counts.append)
    preset = tv.ResNet18_Weights.DEFAULT.transforms(
        crop_size=32, resize_size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    expected = plain_features(folder, preset, nn.Flatten())[rows]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert sum(counts) == len(rows)


@pytest.mark.parametrize("with_crops", [False, True])
def test_parts_equal_separate_calls(folder: Path, with_crops: bool):
    beton, embedder = beton_of(folder), pixel_embedder(2)
    crops = CropPlan(2).draw(beton) if with_crops else None
    parts = [np.array([5, 0, 7]), np.array([1]), np.array([2, 2, 6, 4])]
    counts: list[int] = []
    found = [features for _, features in embedder.parts(beton, parts, counts.append, crops)]
    assert counts == ([1] * 8 if with_crops else [2] * 4)
    for rows, features in zip(parts, found, strict=True):
        assert np.array_equal(features, embedder(beton, rows, crops=crops))


def with_damage(beton: Beton, row: int) -> Beton:
    """The same file, the bytes of one image gone."""
    content = bytearray(beton.path.read_bytes())
    start, size = int(beton.pointers[row]), int(beton.sizes[row])
    content[start : start + size] = bytes(size)
    beton.path.write_bytes(content)
    return open_beton(beton.path)


def test_a_damaged_image_is_named(folder: Path):
    beton = with_damage(beton_of(folder, "jpg"), 3)
    with pytest.raises(DataError, match=r"images\.beton.*image 3"):
        pixel_embedder(2)(beton, np.arange(NUM_IMAGES))


def test_parts_before_a_damaged_image_are_complete(folder: Path):
    beton = with_damage(beton_of(folder, "jpg"), 5)
    parts = pixel_embedder(2).parts(beton, [np.arange(3), np.arange(3, NUM_IMAGES)])
    assert len(next(parts)[1]) == 3
    with pytest.raises(DataError, match="image 5"):
        next(parts)


@pytest.mark.parametrize(
    "name", ["timm:test_resnet", "timm:test_vit", "timm:test_convnext", "mobilenet_v3_small"]
)
@pytest.mark.parametrize("engine", ["eager", "onednn"])
def test_the_bytes_of_a_row_do_not_depend_on_others(folder: Path, name: str, engine: str):
    """A last batch of one image would round otherwise, and so would one of fewer than 16 of some networks."""
    beton, backbone = beton_of(folder), build_backbone(name, seed=0)
    embedder = Embedder(backbone, Preprocessing(32, 32), "cpu", batch_size=8)
    embedder.use_engine(beton, Engine(engine))
    every = embedder(beton, np.arange(NUM_IMAGES))
    for rows in ([4], [7, 0], [6, 3, 1, 2, 5, 4, 0, 7], [2, 2, 1, 5, 0, 3, 7, 6, 4, 0, 1]):
        assert np.array_equal(embedder(beton, np.array(rows)), every[rows])


def test_an_unknown_device_is_refused():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ChoiceError, match="cpu, cuda"):
        choose_device("abacus")
