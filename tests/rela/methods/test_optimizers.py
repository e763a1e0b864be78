"""Optimizers and schedules (rela.methods.optimizers), against formulas.

- weights decay, biases and norm layers don't, unless all shall; a rate is scaled to the batch;
- LARS's step has the length that its paper gives, with and without weight decay; its steps are those of
  lightly's, and with clipped rates those of a plain loop; no rate exceeds the given one;
- a training has the recipe for its length and the size of its images;
- cosine and constant schedules with warm-up.
"""

from typing import Any

import numpy as np
import pytest
import torch
from lightly.utils import lars as lightly_lars
from torch import nn

from rela.methods import method_class
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


def some_gradients(step: int, model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("weight_decay", [1e-6, 0.1])
def test_lars_takes_lightlys_steps(weight_decay: float):
    model, expected = network(), network()
    with torch.no_grad():  # weights of zeros are not adapted
        for one in (model, expected):
            one[0].weight.zero_()
    settings = OptimizerSettings("lars", 0.7, weight_decay)
    optimizer = build_optimizer(settings, model.parameters())
    weights = [p for p in expected.parameters() if p.ndim > 1]
    others = [p for p in expected.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others}]
    library = lightly_lars.LARS(groups, lr=0.7, momentum=0.9)
    for step in range(4):
        some_gradients(step, model)
        some_gradients(step, expected)
        if step == 2:
            model[2].weight.grad.zero_()
            expected[2].weight.grad.zero_()
        optimizer.step()
        library.step()
        for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_clipped_rates_of_lars_are_at_most_the_given_one(scale: float):
    """The rate of a weight is min(γ, 0.02 ‖w‖ / (‖g‖ + λ‖w‖)), by numpy in float64."""
    settings = OptimizerSettings("lars", 0.3, 0.01, trust=0.02, clip_trust=True)
    weight = nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
    optimizer = build_optimizer(settings, [weight])
    w = weight.detach().numpy().astype(np.float64)
    g = scale * np.linspace(2, -1, 12).reshape(3, 4)
    rate = 0.02 * np.linalg.norm(w) / (np.linalg.norm(g) + 0.01 * np.linalg.norm(w))
    weight.grad = torch.from_numpy(g).float()
    optimizer.step()
    expected = w - min(rate, 0.3) * (g + 0.01 * w)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


# (method, epochs, image size, batch) → rate, decay, trust, momentum at the hand-over
RECIPES = {
    ("byol", 1000, 224, 4096): (3.2, 1.5e-6, 0.001, 0.996),
    ("byol", 300, 224, 4096): (4.8, 1e-6, 0.001, 0.99),
    ("byol", 100, 224, 4096): (7.2, 1e-6, 0.001, 0.99),
    ("byol", 40, 224, 4096): (7.2, 1e-6, 0.001, 0.97),
    ("byol", 100, 32, 256): (1.0, 1e-5, 0.02, 0.99),
    ("mocov3", 100, 224, 4096): (9.6, 1e-6, 0.001, 0.99),
    ("mocov3", 300, 224, 4096): (4.8, 1e-6, 0.001, 0.99),
    ("mocov3", 1000, 224, 4096): (4.8, 1.5e-6, 0.001, 0.996),
    ("mocov3", 100, 28, 256): (0.3, 1e-6, 0.02, 0.99),
    ("mocov2", 200, 224, 256): (0.03, 1e-4, None, 0.999),
    ("mocov2", 200, 32, 512): (0.06, 5e-4, None, 0.99),
    ("simclr", 100, 224, 128): (0.075 * 128**0.5, 1e-6, 0.001, None),
    ("simclr", 1000, 224, 4096): (4.8, 1e-6, 0.001, None),
    ("simclr", 100, 32, 256): (0.4, 1e-4, 0.02, None),
    ("simsiam", 100, 224, 512): (0.1, 1e-4, None, None),
    ("simsiam", 800, 32, 512): (0.06, 5e-4, None, None),
    ("vicreg", 100, 224, 128): (0.4, 1e-6, 0.001, None),
    ("vicreg", 100, 224, 512): (0.8, 1e-6, 0.001, None),
    ("vicreg", 1000, 224, 2048): (1.6, 1e-6, 0.001, None),
    ("vicreg", 100, 32, 256): (0.3, 1e-4, 0.02, None),
    ("barlowtwins", 1000, 224, 2048): (1.6, 1.5e-6, 0.001, None),
    ("barlowtwins", 100, 32, 256): (0.3, 1e-4, 0.02, None),
    ("swav", 200, 224, 256): (0.6, 1e-6, 0.001, None),
    ("swav", 200, 32, 256): (0.6, 1e-6, 0.02, None),
    ("dino", 100, 224, 1024): (2e-3, 0.04, None, 0.996),
    ("supervised", 90, 224, 256): (0.1, 1e-4, None, None),
    ("byol", 5000, 224, 256): (0.2, 1.5e-6, 0.001, 0.996),  # as the longest
}


@pytest.mark.parametrize("training", RECIPES, ids=lambda t: "-".join(map(str, t)))
def test_a_training_has_the_recipe_published_for_its_length_and_images(training: Any):
    name, epochs, image_size, batch_size = training
    lr, weight_decay, trust, momentum = RECIPES[training]
    method = method_class(name)
    found = method.optimizer("paper", epochs, image_size).for_batch(batch_size)
    assert found.lr == pytest.approx(lr)
    assert found.weight_decay == weight_decay
    assert (found.optimizer == "lars") == (trust is not None)
    if trust is not None:
        assert (found.trust, found.clip_trust) == (trust, trust == 0.02)
    small = image_size <= 32
    assert method.recipes.choose(epochs, small).momentum == momentum
    reference = method.optimizer("reference", epochs, image_size)
    assert (reference.optimizer, reference.lr, reference.weight_decay) == ("adamw", 1e-3, 0.01)


def test_vicregs_rates_for_100_epochs_are_near_those_of_its_appendix():
    published = {128: 0.8, 256: 0.5, 512: 0.4, 1024: 0.3}
    for batch_size, base in published.items():
        found = method_class("vicreg").optimizer("paper", 100, 224).for_batch(batch_size).lr
        assert found == pytest.approx(base * batch_size / 256, rel=0.14)


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
