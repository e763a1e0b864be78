"""Segmentation on frozen feature maps (rela.evaluation.feature_maps, segmentation, confusion).

- measures: against sets of pixels counted one by one in plain numpy, void and absent classes included;
- feature maps: those of the backbone, whose parameters and buffers do not move; half-precision limits;
- heads: FCN for CNNs, linear for transformers; an easy set is learned; all-void batches teach nothing;
  results depend only on the seed.
"""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model

from rela.errors import DataError
from rela.evaluation.feature_maps import FeatureMaps, compute_feature_maps, map_size
from rela.evaluation.metrics import confusion_matrix, segmentation_measures
from rela.evaluation.protocols import SegmentationProtocol
from rela.evaluation.segmentation import head_for, segmentation_probe
from rela.evaluation.voc import LabelledImage
from rela.models.backbones import build_backbone
from rela.models.layers import spatial_features
from rela.models.preprocessing import Preprocessing

CPU = torch.device("cpu")
QUICK = SegmentationProtocol(num_classes=4, image_size=32, lr=0.02, batch_size=5, epochs=6)


def by_hand(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> tuple[float, float, int]:
    """mIoU, pixel accuracy and number of scored classes by boolean masks."""
    seen = labels != 255
    ratios = []
    for c in range(num_classes):
        truth, guess = (labels == c) & seen, (predicted == c) & seen
        if (truth | guess).any():
            ratios.append((truth & guess).sum() / (truth | guess).sum())
    accuracy = (predicted == labels)[seen].mean()
    return float(np.mean(ratios)), float(accuracy), len(ratios)


@pytest.mark.parametrize("labels_from", [[0, 1, 2, 3, 4], [0, 2, 255], [3], [1, 255, 255]])
def test_measures_are_those_counted_by_hand(labels_from: list[int]):
    rng = np.random.default_rng(len(labels_from))
    labels = rng.choice(labels_from, (6, 9, 11))
    predicted = rng.choice([0, 1, 3], labels.shape)
    counts = confusion_matrix(torch.from_numpy(predicted), torch.from_numpy(labels), 5)
    found = segmentation_measures(counts.numpy())
    miou, accuracy, num_scored = by_hand(predicted, labels, 5)
    assert found["miou"] == pytest.approx(miou)
    assert found["pixel_accuracy"] == pytest.approx(accuracy)
    assert found["num_scored_classes"] == num_scored
    assert counts.sum() == (labels != 255).sum()


# Feature maps


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[LabelledImage, ...]:
    """Five images with a disc of class 1 to 3, of its own colour, in a void ring."""
    made = []
    colours = np.array([[120, 120, 120], [220, 40, 40], [40, 200, 40], [40, 40, 220]])
    y, x = np.mgrid[0:40, 0:50]
    for i in range(5):
        distance = np.hypot(y - 12 - 3 * i, x - 15 - 4 * i)
        mask = np.where(distance < 10, 1 + i % 3, np.where(distance < 12, 255, 0)).astype(np.uint8)
        pixels = colours[np.where(mask == 255, 0, mask)].astype(np.uint8)
        pair = LabelledImage(tmp_path / f"{i}.jpg", tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(pair.image, quality=95)
        Image.fromarray(mask, "L").save(pair.mask)
        made.append(pair)
    return tuple(made)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "vit_b_32"])
def test_maps_are_those_of_a_backbone_that_does_not_move(
    pairs: tuple[LabelledImage, ...], tmp_path: Path, name: str
):
    backbone = build_backbone(name, 64, seed=0).train()
    before = copy.deepcopy(backbone.state_dict())
    preprocessing = Preprocessing(64, 64, "bicubic")
    shape = map_size(backbone, 64, 64)
    maps = compute_feature_maps(backbone, preprocessing, pairs, shape, 4, tmp_path / "new", CPU)
    after = backbone.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert any("running_mean" in key for key in before) == (name != "vit_b_32")
    assert maps.features.shape == (5, *shape[1:]) and maps.features.dtype == np.float16
    assert not list((tmp_path / "new").iterdir())

    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (preprocessing.mean, preprocessing.std))
    for i in (0, 4):
        image = Image.open(pairs[i].image).resize((64, 64), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            expected = spatial_features(backbone.eval(), ((pixels - mean) / std)[None])[0]
        found = torch.from_numpy(maps.features[i]).float()
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_a_model_that_takes_one_size_alone_is_shown_that(monkeypatch: pytest.MonkeyPatch):
    vit = build_backbone("vit_b_32", 64, seed=0)
    assert map_size(vit, 224, 64) == (64, 768, 2, 2)
    protocol = SegmentationProtocol()
    found = {"head": "linear", "map": "768×2×2", "image_size": 64, "batch_size": 8}
    assert "stretched to 64², the only size the model takes" in protocol.describe(found)
    assert map_size(build_backbone("resnet18", 64, seed=0), 224, 64) == (224, 512, 7, 7)


def test_features_beyond_half_precision_are_refused(
    pairs: tuple[LabelledImage, ...], tmp_path: Path
):
    backbone = build_backbone("resnet18", seed=0).eval()
    with torch.no_grad():
        backbone.layer4[1].bn2.bias += 1e6
    with pytest.raises(DataError, match=r"beyond float16 for .*0\.jpg"):
        compute_feature_maps(
            backbone, Preprocessing(64, 64), pairs, (64, 512, 2, 2), 4, tmp_path, CPU
        )


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet18", "FCN"), ("convnext_tiny", "FCN"), ("vgg11", "FCN"), ("vit_b_16", "linear")],
)
def test_transformers_get_a_linear_head(name: str, head: str):
    with torch.device("meta"):
        backbone = get_model(name, weights=None)
    assert head_for(backbone) == head


# Heads


def easy_maps(count: int, seed: int, void: bool = False) -> FeatureMaps:
    """Maps [16, 8, 8] that tell the class of the 4×4 pixels under each place; regions of 2×2 places."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (count, 4, 4)).repeat(2, axis=1).repeat(2, axis=2)
    centers = np.random.default_rng(9).standard_normal((4, 16))
    features = centers[labels] + 0.2 * rng.standard_normal((count, 8, 8, 16))
    masks = labels.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    masks[rng.random(masks.shape) < (1 if void else 0.2)] = 255
    return FeatureMaps(features.transpose(0, 3, 1, 2).astype(np.float16), masks)


@pytest.mark.parametrize("head", ["FCN", "linear"])
def test_an_easy_set_is_learned(head: str):
    train, val = easy_maps(21, 0), easy_maps(6, 1)  # the last batch has a single image
    untrained = segmentation_probe(train, val, head, replace(QUICK, epochs=0))
    found = segmentation_probe(train, val, head, QUICK)
    assert untrained["miou"] + 0.15 < found["miou"] < found["pixel_accuracy"] < 1
    assert found["miou"] > 0.65  # chance is 1 / 7


def test_images_without_labels_teach_nothing():
    val = easy_maps(6, 1)
    untrained = segmentation_probe(easy_maps(6, 0), val, "linear", replace(QUICK, epochs=0))
    assert segmentation_probe(easy_maps(6, 0, void=True), val, "linear", QUICK) == untrained


def test_only_void_to_score_is_refused():
    with pytest.raises(DataError, match="every pixel of every val mask is void"):
        segmentation_probe(easy_maps(3, 0), easy_maps(3, 0, void=True), "linear", QUICK)


def test_scores_are_those_of_the_trained_layer_upsampled_by_torch(monkeypatch: pytest.MonkeyPatch):
    built: list[nn.Module] = []
    layer = nn.Conv2d
    monkeypatch.setattr(nn, "Conv2d", lambda *a: built.append(layer(*a)) or built[-1])
    train, val = easy_maps(10, 0), easy_maps(6, 1)
    found = segmentation_probe(train, val, "linear", QUICK)
    upsample = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
    with torch.no_grad():
        predicted = upsample(built[0](torch.from_numpy(val.features).float())).argmax(dim=1)
    miou, accuracy, _ = by_hand(predicted.numpy(), val.masks, 4)
    assert found["miou"] == pytest.approx(miou, abs=1e-3)
    assert found["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-3)


def test_the_result_depends_on_the_seed_alone():
    data = easy_maps(10, 0), easy_maps(6, 1)
    short = replace(QUICK, epochs=1)
    results = []
    for global_seed, seed in ((0, 0), (1, 0), (1, 1)):
        torch.manual_seed(global_seed)
        results.append(segmentation_probe(*data, "FCN", short, seed)["miou"])
        assert torch.initial_seed() == global_seed
    assert results[0] == results[1] != results[2]
