"""Smaller batches are padded; the compiled network is used where it pays and agrees."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rela.errors import ChoiceError
from rela.representations import compilation
from rela.representations.compilation import compiled, try_compiled

NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).eval()
IMAGES = torch.randn((4, 3, 2, 2), generator=torch.Generator().manual_seed(0))


def test_every_batch_has_the_size_of_the_largest(monkeypatch: pytest.MonkeyPatch):
    sizes = []

    def spy(network: nn.Module, dynamic: bool) -> Callable[[Tensor], Tensor]:
        def run(images: Tensor) -> Tensor:
            sizes.append(len(images))
            features: Tensor = network(images)
            return features

        return run

    monkeypatch.setattr(torch, "compile", spy)
    forward = compiled(NETWORK)
    for count in (4, 1, 3):
        torch.testing.assert_close(forward(IMAGES[:count]), NETWORK(IMAGES[:count]))
    assert sizes == [4, 4, 4]


SECONDS = {"eager": 1.0, "fast": 0.5, "slow": 0.9}


def scaled(name: str, error: float = 0.0) -> Callable[[Tensor], Tensor]:
    """The network with an error, timed by a fake clock."""

    def forward(images: Tensor) -> Tensor:
        noise = torch.randn((4, 5), generator=torch.Generator().manual_seed(1))
        return NETWORK(images) + error * noise

    forward.seconds = SECONDS[name]  # type: ignore[attr-defined]
    return forward


@pytest.mark.parametrize(
    ("name", "num_batches", "must", "used"),
    [
        ("fast", 60, False, True),
        ("fast", 59, False, False),
        ("fast", 1, True, True),
        ("slow", 1000, False, False),
        ("slow", 1, True, True),
    ],
)
def test_it_is_used_for_many_images_if_it_is_faster(
    name: str, num_batches: int, must: bool, used: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compilation, "_seconds", lambda forward, images: forward.seconds)
    found = try_compiled(scaled("eager"), scaled(name), IMAGES, num_batches, must=must)
    assert (found is not None) == used
    if found is not None:
        assert found.speedup == 1 / SECONDS[name]
        assert (found.name, found.difference) == ("compiled", 0)
        assert "eager float16" in found.words


def test_other_features_and_failures_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compilation, "_seconds", lambda forward, images: forward.seconds)
    with pytest.raises(ChoiceError, match=r"at least 0\.99 expected; use --engine eager"):
        try_compiled(scaled("eager"), scaled("fast", error=1.0), IMAGES, 100)

    def fails(images: Tensor) -> Tensor:
        raise RuntimeError("no C compiler\nTraceback")

    with pytest.raises(ChoiceError, match=r"torch\.compile failed \(.*no C compiler"):
        try_compiled(scaled("eager"), fails, IMAGES, 100)
