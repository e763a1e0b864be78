"""Optimizers and schedules (rela.methods.optimizers), against formulas.

- weights decay, biases and norm layers don't, unless all shall; a rate is scaled to the batch;
- LARS's step has the length that its paper gives, with and without weight decay;
- cosine and constant schedules with warm-up.
"""

import numpy as np
import pytest
import torch
from torch import nn

from rela.methods.optimizers import OptimizerSettings, build_optimizer, build_schedule


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("decay_all", [False, True])
def test_weights_decay_and_biases_and_norms_do_not(name: str, decay_all: bool):
    model = network()
    model[0].weight.requires_grad_(False)
    settings = OptimizerSettings(name, 0.1, 0.2, decay_all=decay_all)
    optimizer = build_optimizer(settings, model.parameters())
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert id(model[0].weight) not in decays  # frozen
    assert decays[id(model[2].weight)] == 0.2
    for parameter in (model[0].bias, model[1].weight, model[1].bias, model[2].bias):
        assert decays[id(parameter)] == (0.2 if decay_all else 0.0)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-6, 0.1])
def test_the_first_step_of_lars_has_the_published_length(weight_decay: float):
    """‖Δw‖ = lr · 0.001 · ‖w‖ ‖g + λw‖ / (‖g‖ + λ‖w‖) (You et al., 2017, arXiv 1708.03888)."""
    weight = nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
    before = weight.detach().double().clone()
    gradient = torch.linspace(2, -1, 12).view(3, 4)
    optimizer = build_optimizer(OptimizerSettings("lars", 4.8, weight_decay), [weight])
    weight.grad = gradient.clone()
    optimizer.step()
    moved = (weight.detach().double() - before).norm()
    g, decayed = gradient.double(), gradient.double() + weight_decay * before
    trust = 0.001 * before.norm() / (g.norm() + weight_decay * before.norm())
    assert float(moved) == pytest.approx(float(4.8 * trust * decayed.norm()), rel=1e-5)


def test_a_rate_is_scaled_to_the_batch_once():
    published = OptimizerSettings("sgd", 0.03, 0.0, lr_batch_size=256)
    assert published.for_batch(1024).lr == pytest.approx(0.12)
    assert published.for_batch(1024).for_batch(64).lr == pytest.approx(0.12)
    assert OptimizerSettings("sgd", 0.03, 0.0).for_batch(1024).lr == 0.03
    with pytest.raises(AssertionError, match="scaled"):
        build_optimizer(published, network().parameters())


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup_epochs", [0, 2, 100])
def test_the_rate_over_all_steps(schedule: str, warmup_epochs: int):
    settings = OptimizerSettings("sgd", 0.5, 0.0, schedule, warmup_epochs)
    optimizer = build_optimizer(settings, network().parameters())
    built = build_schedule(settings, optimizer, num_steps=20, steps_per_epoch=4)
    found = []
    for _ in range(20):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if built is not None:
            built.step()
    assert (built is None) == (schedule == "constant" and warmup_epochs == 0)
    warmup = min(20, 4 * warmup_epochs)
    rising = [0.5 * (k + 1) / warmup for k in range(warmup)]
    rest = 20 - warmup
    end = 0.5 if schedule == "constant" else 0.0005
    half_cosine = [
        end + (0.5 - end) * (1 + np.cos(np.pi * k / (rest - 1))) / 2 for k in range(rest)
    ]
    assert found == pytest.approx(rising + half_cosine, rel=1e-9)
