"""BYOL (rela.methods.byol) against its formulas and lightly's transforms.

- the loss equals half the sum of the two negative cosines, computed by numpy in float64;
- heads have the published widths; gradients reach the online network alone;
- the momentum update equals a plain loop;
- the views have the distributions of lightly's BYOLTransform, without blur for small images.
"""

import copy

import numpy as np
import pytest
import torch
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from numpy.typing import NDArray
from torch import Tensor, nn

from rela.errors import ChoiceError
from rela.methods import METHOD_NAMES, build_method
from rela.methods.byol import BYOL
from rela.views import NORMALIZE_MEAN, NORMALIZE_STD, View

WIDTH = 12


@pytest.fixture
def byol() -> BYOL:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, WIDTH), nn.BatchNorm1d(WIDTH))
    method = BYOL(backbone, WIDTH)
    for parameter in (
        *method.momentum_backbone.parameters(), *method.momentum_projector.parameters(),
    ):  # fmt: skip
        parameter.add_(torch.randn_like(parameter), alpha=0.1)  # no longer the online network
    return method


def two_views() -> list[Tensor]:
    return list(torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1)))


def mean_cosine(first: Tensor, second: Tensor) -> float:
    a, b = (x.detach().numpy().astype(np.float64) for x in (first, second))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).mean())


def test_the_loss_is_the_mean_of_both_negative_cosines(byol: BYOL):
    first, second = two_views()
    loss, features = byol([first, second])
    online = [byol.predictor(byol.projector(byol.backbone(view))) for view in (first, second)]
    aims = [byol.momentum_projector(byol.momentum_backbone(view)) for view in (first, second)]
    expected = 0.5 * (-mean_cosine(online[0], aims[1]) - mean_cosine(online[1], aims[0]))
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-6)
    for view, found in zip((first, second), features, strict=True):
        torch.testing.assert_close(found, byol.backbone(view))


def test_the_heads_have_the_published_widths(byol: BYOL):
    def widths(head: nn.Module) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]

    assert widths(byol.projector) == [(WIDTH, 2 * WIDTH), (2 * WIDTH, 256)]
    assert widths(byol.predictor) == [(256, 2 * WIDTH), (2 * WIDTH, 256)]
    assert widths(byol.momentum_projector) == widths(byol.projector)


def test_gradients_reach_the_online_network_alone(byol: BYOL):
    loss, _ = byol(two_views())
    loss.backward()
    reached = {name.split(".")[0] for name, p in byol.named_parameters() if p.grad is not None}
    assert reached == {"backbone", "projector", "predictor"}
    assert all(p.grad.abs().sum() > 0 for p in byol.backbone[1].parameters() if p.ndim > 1)


def test_the_momentum_network_starts_as_the_online_one():
    method = BYOL(nn.Linear(4, WIDTH), WIDTH)
    for online, momentum in (
        (method.backbone, method.momentum_backbone),
        (method.projector, method.momentum_projector),
    ):
        for name, value in online.state_dict().items():
            assert torch.equal(value, momentum.state_dict()[name])


def test_the_momentum_update_equals_a_plain_loop(byol: BYOL):
    pairs = [
        (byol.backbone, byol.momentum_backbone),
        (byol.projector, byol.momentum_projector),
    ]
    online_before = copy.deepcopy(byol.backbone.state_dict())
    expected: list[NDArray[np.float64]] = []
    for online, momentum in pairs:
        for p, m in zip(online.parameters(), momentum.parameters(), strict=True):
            expected.append(0.99 * m.numpy().astype(np.float64) + 0.01 * p.detach().numpy())
    byol.update_momentum()
    found = [m.numpy() for _, momentum in pairs for m in momentum.parameters()]
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(v, byol.backbone.state_dict()[k]) for k, v in online_before.items())


def view_of(transform: object, size: int) -> View:
    """What a pipeline of lightly does, in our words."""
    steps = {type(step).__name__: step for step in transform.transform.transforms}
    (jitter,) = steps["RandomApply"].transforms
    crop, blur = steps["RandomResizedCrop"], steps["GaussianBlur"]
    assert crop.size == (size, size)
    for low, high in (jitter.brightness, jitter.contrast, jitter.saturation):
        assert 1 - low == pytest.approx(high - 1)
    normalize = steps["Normalize"]
    assert (tuple(normalize.mean), tuple(normalize.std)) == (NORMALIZE_MEAN, NORMALIZE_STD)
    assert steps["RandomVerticalFlip"].p == 0
    return View(
        size,
        scale=crop.scale,
        ratio=crop.ratio,
        flip_probability=steps["RandomHorizontalFlip"].p,
        jitter_probability=steps["RandomApply"].p,
        brightness=jitter.brightness[1] - 1,
        contrast=jitter.contrast[1] - 1,
        saturation=jitter.saturation[1] - 1,
        hue=jitter.hue[1],
        gray_probability=steps["RandomGrayscale"].p,
        blur_probability=blur.prob,
        sigma=blur.sigmas,
        solarize_probability=steps["RandomSolarization"].prob,
    )


@pytest.mark.parametrize("size", [96, 224])
def test_the_views_are_those_of_lightlys_transform(size: int):
    for found, transform in zip(
        BYOL.views(size), (BYOLView1Transform(size), BYOLView2Transform(size)), strict=True
    ):
        assert found.row() == pytest.approx(view_of(transform, size).row())


@pytest.mark.parametrize("size", [8, 32])
def test_small_images_are_not_blurred_and_all_else_is_the_same(size: int):
    transforms = (
        BYOLView1Transform(size, gaussian_blur=0.0), BYOLView2Transform(size, gaussian_blur=0.0),
    )  # fmt: skip
    for found, transform in zip(BYOL.views(size), transforms, strict=True):
        assert found.row() == pytest.approx(view_of(transform, size).row())


def test_methods_are_found_by_name():
    assert isinstance(build_method("byol", nn.Linear(4, WIDTH), WIDTH), BYOL)
    with pytest.raises(ChoiceError, match=METHOD_NAMES[0]):
        build_method("boyl", nn.Linear(4, WIDTH), WIDTH)
