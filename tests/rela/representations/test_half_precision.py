"""Float16 in place of autocast (rela.representations.half_precision), on the CPU.

- a network whose features stay as exact is converted, and restored to the last bit;
- one whose sums overflow, or whose code makes float32 tensors, keeps its weights;
- an Embedder computes the same in all three arithmetics, and says which it uses;
- an overflow after the first images is computed again with autocast.
"""

import copy

import numpy as np
import pytest
import torch
from betons import beton_of
from pictures import MakeTree
from torch import Tensor, nn

from rela.models.preprocessing import Preprocessing
from rela.representations import embedder as embedder_module
from rela.representations.embedder import Embedder
from rela.representations.half_precision import convert_to_float16, restore

SIZE = 16


class Residual(nn.Module):
    """Norm and linear layers around a sum, whose size `gain` decides."""

    def __init__(self, gain: float = 1.0, maker: torch.dtype | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gain, self.maker = gain, maker
        self.first = nn.Linear(3 * SIZE * SIZE, 32)
        self.norm = nn.BatchNorm1d(32)
        self.last = nn.Linear(32, 8)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images.flatten(1))
        total = hidden * self.gain + hidden.mean(dim=1, keepdim=True)
        if self.maker is not None:
            total = total @ torch.eye(32, dtype=self.maker)
        return self.last(self.norm(total / self.gain))


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def same_state(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype
        for name in first | second
    )


def test_a_converted_network_has_the_same_features_and_can_be_restored():
    network = Residual().eval()
    before, expected = copy.deepcopy(network), network(images()).detach()
    weights = convert_to_float16(network, images())
    assert weights is not None
    found = network(images().half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=2e-2)
    restore(network, weights)
    assert same_state(network, before)


@pytest.mark.parametrize("network", [Residual(1e6), Residual(maker=torch.float32)])
def test_a_network_that_float16_does_not_suit_keeps_its_weights(network: Residual):
    network.eval()
    before = copy.deepcopy(network)
    assert torch.isfinite(network(images())).all()
    assert convert_to_float16(network, images()) is None
    assert same_state(network, before)


@pytest.fixture
def autocasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU computes with autocast, as a GPU would; two images decide."""
    init = Embedder.__init__

    def with_autocast(self: Embedder, *arguments: object, **named: object) -> None:
        init(self, *arguments, **named)  # type: ignore[arg-type]
        self.arithmetic = "autocast"

    monkeypatch.setattr(Embedder, "__init__", with_autocast)
    monkeypatch.setattr(embedder_module, "_TRIED_IMAGES", 2)


def test_all_arithmetics_have_the_same_features(
    make_tree: MakeTree, autocasting: None, monkeypatch: pytest.MonkeyPatch
):
    beton, rows = beton_of(make_tree({f"{i}.png": (SIZE, SIZE) for i in range(5)})), np.arange(5)
    embedder = Embedder(Residual(), Preprocessing(SIZE, SIZE), "cpu")
    autocast = embedder(beton, rows)
    embedder.try_float16(beton)
    assert embedder.arithmetic == "float16"
    half = embedder(beton, rows)
    assert embedder.back_to_autocast() and not embedder.back_to_autocast()
    assert embedder.arithmetic == "autocast"
    assert np.array_equal(embedder(beton, rows), autocast)
    embedder.arithmetic = "float32"
    exact = embedder(beton, rows)
    spread = np.linalg.norm(exact - exact.mean(axis=0))
    assert 0 < np.linalg.norm(half - exact) < 0.01 * spread
    assert 0 < np.linalg.norm(autocast - exact) < 0.01 * spread


def test_float32_on_the_cpu_stays_what_it_is(make_tree: MakeTree):
    beton = beton_of(make_tree({f"{i}.png": (SIZE, SIZE) for i in range(3)}))
    embedder = Embedder(Residual(), Preprocessing(SIZE, SIZE), "cpu")
    embedder.try_float16(beton)
    assert embedder.arithmetic == "float32"
    assert next(embedder.backbone.parameters()).dtype == torch.float32
