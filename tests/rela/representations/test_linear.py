"""Linear layers by oneDNN equal those in float64, and so do their gradients."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.models as tv
from torch import Tensor, nn

from rela.representations import linear
from rela.representations.linear import OneDnnLinear


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


INPUTS: dict[str, Callable[[], Tensor]] = {
    "tokens": lambda: normal(3, 7, 20),
    "one image": lambda: normal(1, 7, 20),
    "rows and columns": lambda: normal(2, 5, 4, 20),
    "transposed": lambda: normal(3, 20, 7).transpose(1, 2),
    "channels last": lambda: normal(2, 20, 5, 4).permute(0, 2, 3, 1),
    "rows": lambda: normal(60, 20),
    "few rows": lambda: normal(6, 20),
    "one row": lambda: normal(20),
    "nothing": lambda: normal(0, 7, 20),
}


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", INPUTS)
def test_a_layer_equals_float64(shape: str, with_bias: bool) -> None:
    given, layer = INPUTS[shape](), nn.Linear(20, 9, bias=with_bias)
    expected = given.double().numpy() @ layer.weight.detach().double().numpy().T
    if layer.bias is not None:
        expected = expected + layer.bias.detach().double().numpy()
    with OneDnnLinear():
        found = layer(given)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_gradients_equal_float64() -> None:
    found, expected = [], []
    for dtype, kept in ((torch.float32, found), (torch.float64, expected)):
        given = normal(3, 7, 20).to(dtype).requires_grad_()
        weight, bias = normal(9, 20).to(dtype), normal(9).to(dtype)
        leaves = given, weight.requires_grad_(), bias.requires_grad_()
        kept += torch.autograd.grad(linear.linear(*leaves).sin().sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "attention of torchvision": (lambda: tv.VisionTransformer(16, 4, 1, 2, 24, 32), 4),
    "ConvNeXt": (lambda: tv.convnext_tiny().features[1], 6),
    "no linear layer": (lambda: nn.Conv2d(3, 4, 3), 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_network_is_computed_by_onednn(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, expected = NETWORKS[name]
    network, calls = make().eval(), []
    images = normal(2, 96 if name == "ConvNeXt" else 3, 16, 16)
    convolve = torch.mkldnn_convolution
    monkeypatch.setattr(
        torch, "mkldnn_convolution", lambda *given: calls.append(1) or convolve(*given)
    )
    with torch.inference_mode():
        plain = network(images)
        assert not calls
        with OneDnnLinear():
            found = network(images)
    assert len(calls) == expected
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)


def test_other_number_formats_stay_as_they_are() -> None:
    layer = nn.Linear(20, 9)
    with OneDnnLinear():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(normal(3, 7, 20)).dtype == torch.bfloat16
        assert layer.double()(normal(3, 7, 20).double()).dtype == torch.float64
