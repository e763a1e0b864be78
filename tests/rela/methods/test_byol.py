"""BYOL (rela.methods.byol) against its formulas; what it shares with others is in test_methods.

- the loss equals half the sum of the two negative cosines, computed by numpy in float64;
- heads have the published widths; the momentum network starts as the online one;
- the momentum is 0.99 in the reference, and in the paper rises from 0.996 to 1 from the hand-over on;
- the paper's optimizer has the published numbers.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rela.methods.byol import BYOL
from rela.methods.method import MethodOptions, Progress

WIDTH = 12
START = Progress(0, 100, 10)


def make_byol(**options: object) -> BYOL:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, WIDTH), nn.BatchNorm1d(WIDTH))
    return BYOL(backbone, MethodOptions(WIDTH, 8, **options))  # type: ignore[arg-type]


def mean_cosine(first: Tensor, second: Tensor) -> float:
    a, b = (x.detach().numpy().astype(np.float64) for x in (first, second))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).mean())


def test_the_loss_is_the_mean_of_both_negative_cosines():
    byol = make_byol()
    for parameter in (
        *byol.momentum_backbone.parameters(), *byol.momentum_projector.parameters(),
    ):  # fmt: skip
        parameter.add_(torch.randn_like(parameter), alpha=0.1)  # no longer the online network
    first, second = torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    loss, features = byol([first, second], torch.zeros(16), START)
    online = [byol.predictor(byol.projector(byol.backbone(view))) for view in (first, second)]
    aims = [byol.momentum_projector(byol.momentum_backbone(view)) for view in (first, second)]
    expected = 0.5 * (-mean_cosine(online[0], aims[1]) - mean_cosine(online[1], aims[0]))
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-6)
    for view, found in zip((first, second), features, strict=True):
        torch.testing.assert_close(found, byol.backbone(view))


def test_the_heads_have_the_published_widths():
    def widths(head: nn.Module) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]

    byol = make_byol()
    assert widths(byol.projector) == [(WIDTH, 2 * WIDTH), (2 * WIDTH, 256)]
    assert widths(byol.predictor) == [(256, 2 * WIDTH), (2 * WIDTH, 256)]
    assert widths(byol.momentum_projector) == widths(byol.projector)


def momentum_found(byol: BYOL, progress: Progress | None) -> float:
    """The coefficient that an update applies, read off one weight that goes from 1 towards 0."""
    weight, momentum_weight = byol.backbone[1].weight, byol.momentum_backbone[1].weight
    with torch.no_grad():
        weight.zero_()
        momentum_weight.fill_(1.0)
    byol.update_momentum(progress)
    return float(momentum_weight[0, 0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"hyperparameters": "reference"}, [0.99, 0.99, 0.99]),
        ({"hyperparameters": "paper"}, [0.996, 1 - 0.004 * (1 + math.cos(math.pi / 4)) / 2, 1.0]),
        ({"hyperparameters": "paper", "ema": "constant"}, [0.996, 0.996, 0.996]),
        ({"hyperparameters": "reference", "ema": "cosine"}, [0.99, None, 1.0]),
    ],
)
def test_the_momentum_follows_its_course_from_the_hand_over_on(options, expected):
    byol = make_byol(**options)
    assert momentum_found(byol, None) == pytest.approx(0.99)  # in stage 1
    for step, value in zip((0, 25, 100), expected, strict=True):
        if value is not None:
            found = momentum_found(byol, Progress(step, 101, 10))
            assert found == pytest.approx(value, abs=1e-6)


def test_the_optimizer_is_the_publications():
    settings = BYOL.optimizer.for_batch(4096)
    assert settings.optimizer == "lars"
    assert settings.lr == pytest.approx(3.2)
    assert (settings.weight_decay, settings.warmup_epochs, settings.schedule) == (
        1.5e-6, 10, "cosine",
    )  # fmt: skip
