"""Convolutions as matrix products: equal to torch's in float64, and used only where they are faster."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from rela.models.backbones import build_backbone
from rela.models.small_convolutions import SmallConv2d, use_small_convolutions


def small(**options: Any) -> nn.Conv2d:
    layer = nn.Sequential(nn.Conv2d(128, 8, **{"kernel_size": 3, "bias": False} | options))
    use_small_convolutions(layer)
    return layer[0]


@pytest.mark.parametrize(
    ("side", "options"),
    [
        (2, {"padding": 1}),
        (4, {"padding": 1, "stride": 2, "bias": True}),
        (3, {"padding": 0, "kernel_size": (2, 3)}),
        (1, {"padding": 2, "kernel_size": 5, "stride": 3}),
        (16, {"padding": 1}),  # left to torch
    ],
)
def test_output_and_gradients_are_those_of_a_convolution(
    side: int, options: dict[str, Any]
) -> None:
    layer = small(**options)
    assert type(layer) is SmallConv2d
    exact = copy.deepcopy(layer).double()
    exact.__class__ = nn.Conv2d
    images = torch.randn(3, 128, side, side, requires_grad=True)
    doubles = images.detach().double().requires_grad_()
    output, expected = layer(images), exact(doubles)
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-5)
    output.square().sum().backward()
    expected.square().sum().backward()
    for mine, theirs in zip(
        [images, *layer.parameters()], [doubles, *exact.parameters()], strict=True
    ):
        assert mine.grad is not None
        assert theirs.grad is not None
        error = (mine.grad.double() - theirs.grad).norm() / theirs.grad.norm()
        assert error < 1e-5


def test_bfloat16_under_autocast_is_as_exact_as_torchs() -> None:
    layer, images = small(padding=1), torch.randn(4, 128, 4, 4).bfloat16()
    exact = functional.conv2d(images.double(), layer.weight.double(), padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(images)
        plain = functional.conv2d(images, layer.weight, padding=1)
    assert output.dtype == torch.bfloat16
    assert (output.double() - exact).norm() < 1.1 * (plain.double() - exact).norm()


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"groups": 2},
        {"dilation": 2},
        {"padding": "same"},
        {"padding": (1, 0)},
        {"stride": (1, 2)},
        {"padding_mode": "circular", "padding": 1},
    ],
)
def test_other_layers_stay_as_they_are(options: dict[str, Any]) -> None:
    assert type(small(**options)) is nn.Conv2d


def test_only_wide_layers_and_no_names_of_weights_change() -> None:
    network = build_backbone("resnet18", 32, seed=0)
    names = list(network.state_dict())
    use_small_convolutions(network)
    assert list(network.state_dict()) == names
    changed = {n.split(".")[0] for n, m in network.named_modules() if type(m) is SmallConv2d}
    assert changed == {"layer2", "layer3", "layer4"}
