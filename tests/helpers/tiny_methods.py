"""Every algorithm around a backbone of a few hundred weights, for tests."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rela.methods import METHODS, dino, method_class
from rela.methods.method import Method, MethodOptions, Progress

WIDTH, SIZE, BATCH, NUM_CLASSES = 12, 16, 8, 3
ALGORITHMS = tuple(name for name in METHODS if name != "none")
SECOND_EPOCH = Progress(step=10, num_steps=100, steps_per_epoch=10)


def tiny_backbone() -> nn.Module:
    """Images of any size → features [B, WIDTH]."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, WIDTH),
    )


def make_method(name: str, seed: int = 0, **chosen: Any) -> Method:
    """The algorithm with its publication's hyperparameters, or as chosen; weights by `seed`."""
    defaults: dict[str, Any] = {
        "feature_dim": WIDTH,
        "image_size": SIZE,
        "num_images": 4 * BATCH,
        "num_classes": NUM_CLASSES,
        "hyperparameters": "paper",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method_class(name)(tiny_backbone(), MethodOptions(**{**defaults, **chosen}))


def some_views(method: Method, seed: int = 1) -> list[Tensor]:
    """A batch for each view of the method: float [BATCH, 3, S, S], alike for the same image."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCH, 3, 1, 1, generator=generator)
    return [
        images + 0.5 * torch.randn(BATCH, 3, view.size, view.size, generator=generator)
        for view in method.views()
    ]


def some_labels() -> Tensor:
    """int64 [BATCH], two of them without a class."""
    return torch.tensor([0, 1, 2, -1, 0, 1, -1, 2])


def perturb_momentum_networks(method: Method) -> None:
    """Away from the online ones, by a tenth of a standard normal."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name.startswith("momentum_"):
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def shrink_dino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head with 64 hidden units and prototypes, in place of 2,048 and the paper's 65,536."""
    monkeypatch.setattr(dino, "_HIDDEN_DIM", 64)
    monkeypatch.setattr(dino, "_NUM_PROTOTYPES", {"rela": 64, "reference": 64, "paper": 64})
