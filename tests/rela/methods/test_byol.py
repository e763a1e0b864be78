"""BYOL (rela.methods.byol) against its formulas; what it shares with others is in test_methods.

- the loss equals half the sum of the two negative cosines, or the paper's squared distances but for a
  constant, computed by numpy in float64;
- heads have the published widths, and are those of lightly; the momentum network starts as the online one;
- the momentum is 0.99 in the reference, and in the paper rises from its value for the length of the
  training to 1, from the hand-over on.
"""

import math

import numpy as np
import pytest
import torch
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from torch import Tensor, nn

from rela.methods.byol import BYOL
from rela.methods.method import MethodOptions, Progress

WIDTH = 12
LONG = {"hyperparameters": "paper", "epochs": 1000, "image_size": 48}
START = Progress(0, 100, 10)


def make_byol(**options: object) -> BYOL:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, WIDTH), nn.BatchNorm1d(WIDTH))
    return BYOL(
        backbone, MethodOptions(WIDTH, **{"image_size": 8, "hyperparameters": "paper", **options})
    )  # type: ignore[arg-type]


def mean_cosine(first: Tensor, second: Tensor) -> float:
    a, b = (x.detach().numpy().astype(np.float64) for x in (first, second))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).mean())


@pytest.mark.parametrize("kind", ["rela", "reference", "paper"])
def test_the_loss_is_the_sum_of_both_negative_cosines_as_published(kind: str):
    byol = make_byol(hyperparameters=kind)
    for parameter in (
        *byol.momentum_backbone.parameters(), *byol.momentum_projector.parameters(),
    ):  # fmt: skip
        parameter.add_(torch.randn_like(parameter), alpha=0.1)  # no longer the online network
    first, second = torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    loss, features = byol([first, second], torch.zeros(16), START)
    online = [byol.predictor(byol.projector(byol.backbone(view))) for view in (first, second)]
    aims = [byol.momentum_projector(byol.momentum_backbone(view)) for view in (first, second)]
    expected = 0.5 * (-mean_cosine(online[0], aims[1]) - mean_cosine(online[1], aims[0]))
    if kind == "paper":  # ‖q/‖q‖ − z/‖z‖‖² for both directions (equation 2), without its constant 4
        expected = sum(squared_distance(online[i], aims[1 - i]) for i in range(2)) - 4
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-6)
    for view, found in zip((first, second), features, strict=True):
        torch.testing.assert_close(found, byol.backbone(view))


def squared_distance(first: Tensor, second: Tensor) -> float:
    a, b = (x.detach().numpy().astype(np.float64) for x in (first, second))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return float(((a - b) ** 2).sum(axis=1).mean())


def test_the_heads_have_the_published_widths():
    def widths(head: nn.Module) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]

    byol = make_byol()
    assert widths(byol.projector) == [(WIDTH, 2 * WIDTH), (2 * WIDTH, 256)]
    assert widths(byol.predictor) == [(256, 2 * WIDTH), (2 * WIDTH, 256)]
    assert widths(byol.momentum_projector) == widths(byol.projector)


def test_the_heads_are_those_of_lightly():
    byol, features = make_byol(), torch.randn(8, WIDTH)
    pairs = (
        (byol.projector, BYOLProjectionHead(WIDTH, 2 * WIDTH, 256), features),
        (byol.predictor, BYOLPredictionHead(256, 2 * WIDTH, 256), torch.randn(8, 256)),
    )
    for ours, theirs, inputs in pairs:
        theirs.load_state_dict(ours.state_dict())  # raises if a name differs
        assert torch.equal(ours(inputs), theirs(inputs))


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
        ({"hyperparameters": "rela", "epochs": 1000}, [0.99, 0.99, 0.99]),
        (LONG, [0.996, 1 - 0.004 * (1 + math.cos(math.pi / 4)) / 2, 1.0]),
        ({**LONG, "ema": "constant"}, [0.996, 0.996, 0.996]),
        ({**LONG, "epochs": 100}, [0.99, 1 - 0.01 * (1 + math.cos(math.pi / 4)) / 2, 1.0]),
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
