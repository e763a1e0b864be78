"""The two-stage training module (rela.training.two_stage), on a linear backbone and 8×8 images.

- the loss of stage 1 and the normalisation equal plain computations;
- a fixed W is in no optimizer and stays, a learned one moves; the momentum network follows in stage 1;
- the hand-over changes views from the next batch on, also in the middle of an epoch;
- with accumulation the rule sees each optimizer step once, with the mean loss of its micro-batches;
- the online classifier never touches the backbone's gradients; a loss that is NaN ends the training.

The targets in stage 2 are in test_anchor.
"""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import convert_image_dtype
from torchvision.transforms.functional import normalize as torchvision_normalize
from two_stage_modules import (
    BYOL_VIEWS,
    LIGHTNING_WARNS,
    NUM_CLASSES,
    NUM_IMAGES,
    SIZE,
    beton,
    fit,
    make_module,
    targets,
)

from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.data.views import stage1_views
from rela.methods.byol import BYOL
from rela.methods.method import Progress
from rela.methods.optimizers import OptimizerSettings
from rela.training.handover import FixedHandOver
from rela.training.two_stage import DivergedError, target_loss

__all__ = ["beton", "make_module", "targets"]  # fixtures
pytestmark = LIGHTNING_WARNS

# Losses and pixels


def test_the_loss_of_stage_one_is_one_minus_the_cosine():
    rng = np.random.default_rng(0)
    predictions = [rng.standard_normal((9, 6)).astype(np.float32) for _ in range(2)]
    targets = [rng.standard_normal((9, 6)).astype(np.float16) for _ in range(2)]
    losses = []
    for p, target in zip(predictions, targets, strict=True):
        a, b = p.astype(np.float64), target.astype(np.float64)
        losses.append(1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    found = target_loss(
        [torch.from_numpy(p) for p in predictions], [torch.from_numpy(t) for t in targets]
    )
    assert float(found) == pytest.approx(np.mean(losses), abs=1e-6)


def test_pixels_are_normalised_as_torchvision_does_it(make_module):
    module, loader = make_module()
    view = next(iter(loader))["views"][0]
    expected = torchvision_normalize(
        convert_image_dtype(view), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(module.normalize(view), expected)


def test_a_step_of_stage_one_regresses_the_targets_of_its_images(make_module, targets: Tensor):
    module, loader = make_module(handover=FixedHandOver(100))
    batch = next(iter(loader))
    result = module.training_step(batch, 0)
    predictions = [module.head(module.method.backbone(module.normalize(v))) for v in batch["views"]]
    expected = target_loss(predictions, [targets[batch["index"]]] * 2)
    torch.testing.assert_close(result["loss"], expected)


# What is trained


@pytest.mark.parametrize("learned", [False, True])
def test_the_linear_layer_is_trained_only_if_asked(make_module, learned: bool):
    module, loader = make_module(handover=FixedHandOver(100), learn_head=learned)
    before = copy.deepcopy(module.state_dict())
    fit(module, loader, epochs=1)
    optimized = {id(p) for group in module.optimizers().param_groups for p in group["params"]}
    assert (id(module.head.weight) in optimized) == learned
    assert torch.equal(module.head.weight, before["head.weight"]) == (not learned)
    assert torch.equal(module.head.bias, before["head.bias"]) == (not learned)
    assert not torch.equal(module.method.backbone[1].weight, before["method.backbone.1.weight"])


def test_no_optimizer_holds_the_momentum_network(make_module):
    module, _ = make_module(num_classes=NUM_CLASSES)
    optimizer = module.configure_optimizers()  # of a constant rate: no schedule beside it
    assert isinstance(optimizer, torch.optim.AdamW)
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = {name for name, p in module.named_parameters() if id(p) in optimized}
    assert {name for name, _ in module.named_parameters()} - named == {
        name for name, _ in module.named_parameters() if name.startswith("method.momentum_")
    }


def test_the_momentum_network_follows_the_backbone_during_stage_one(make_module):
    module, loader = make_module(batch_size=NUM_IMAGES, handover=FixedHandOver(100))
    before = module.method.momentum_backbone[1].weight.clone()
    fit(module, loader, epochs=1)  # one step
    expected = 0.99 * before + 0.01 * module.method.backbone[1].weight.detach()
    torch.testing.assert_close(module.method.momentum_backbone[1].weight, expected)
    assert not torch.equal(module.method.momentum_backbone[1].weight, before)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_online_classifier_does_not_change_the_gradients_of_the_backbone(
    make_module, stage: int
):
    gradients = []
    for num_classes in (0, NUM_CLASSES):
        options = {"handover": FixedHandOver(100)} if stage == 1 else {}
        module, loader = make_module(num_classes=num_classes, **options)
        module.training_step(next(iter(loader)), 0)["loss"].backward()
        gradients.append(module.method.backbone[1].weight.grad)
    assert gradients[0].abs().sum() > 0
    assert torch.equal(gradients[0], gradients[1])
    assert module.classifier.classification_head.weight.grad.abs().sum() > 0


def test_the_online_accuracy_is_that_of_the_batch(make_module):
    module, loader = make_module(num_classes=NUM_CLASSES)
    batch = next(iter(loader))
    features = [module.method.backbone(module.normalize(view)) for view in batch["views"]]
    head = module.classifier.classification_head
    hits = [(head(f).argmax(dim=1) == batch["label"]).float() for f in features]
    found = module.training_step(batch, 0)["accuracy"]
    assert float(found) == pytest.approx(float(torch.cat(hits).mean()))


# The hand-over


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_views_and_targets_change_with_the_batch_after_the_hand_over(
    make_module, beton: Beton, targets: Tensor, steps: int
):
    module, loader = make_module(handover=FixedHandOver(steps))
    batches = fit(module, loader, epochs=2).batches
    expected = {}
    for stage, views in ((1, stage1_views(SIZE)), (2, BYOL_VIEWS)):
        plain = ViewLoader(beton, views, 4)
        expected[stage] = []
        for epoch in range(2):
            plain.set_epoch(epoch)
            expected[stage] += list(plain)
    assert len(batches) == len(expected[1]) == 6
    for step, batch in enumerate(batches):
        wanted = expected[1 if step < steps else 2][step]
        assert torch.equal(batch["index"], wanted["index"])
        for found, view in zip(batch["views"], wanted["views"], strict=True):
            assert torch.equal(found, view), step
        assert ("targets" in batch) == (step < steps)
        if step < steps:
            assert all(torch.equal(t, targets[batch["index"]]) for t in batch["targets"])
    assert (module.stage, module.handover_step) == (2, steps)


def test_without_a_hand_over_the_algorithm_trains_from_the_start(make_module):
    module, loader = make_module()
    recorder = fit(module, loader, epochs=1)
    assert (module.stage, module.handover_step) == (2, None)
    assert all("targets" not in batch for batch in recorder.batches)
    assert len(recorder.objectives) == 3


class CountingRule(FixedHandOver):
    """Never hands over; remembers the losses that it was given."""

    def __init__(self) -> None:
        super().__init__(10**9)
        self.losses: list[float] = []

    def update(self, loss: float) -> bool:
        self.losses.append(loss)
        return super().update(loss)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "groups"),
    [(4, 1, [1, 1, 1]), (2, 2, [2, 2, 2]), (2, 3, [3, 3]), (4, 2, [2, 1])],
)
def test_the_rule_sees_every_optimizer_step_once_with_its_mean_loss(
    make_module, batch_size: int, accumulate: int, groups: list[int]
):
    rule = CountingRule()
    module, loader = make_module(batch_size=batch_size, handover=rule)
    objectives = fit(module, loader, epochs=2, accumulate=accumulate).objectives
    ends = np.cumsum(groups * 2)
    means = [np.mean(objectives[e - g : e]) for e, g in zip(ends, groups * 2, strict=True)]
    assert rule.losses == pytest.approx(means, rel=1e-6)


# Divergence


@pytest.mark.parametrize("stage", [1, 2])
def test_a_loss_that_is_not_a_number_ends_the_training(make_module, stage: int):
    options = {"handover": FixedHandOver(100)} if stage == 1 else {}
    module, loader = make_module(**options)
    with torch.no_grad():
        module.method.backbone[1].weight[0, 0] = float("nan")
    with pytest.raises(DivergedError, match=rf"stage-{stage} loss became nan at step 1"):
        fit(module, loader, epochs=1)


def test_an_infinite_target_ends_the_training(make_module, targets: Tensor):
    wrong = targets.clone()
    wrong[:, 2] = float("inf")
    module, loader = make_module(handover=FixedHandOver(100), targets=wrong)
    with pytest.raises(DivergedError, match="stage-1"):
        fit(module, loader, epochs=1)


# What the algorithm is told


class Telling(BYOL):
    """Remembers where it was told to be, and asks for another weight decay at every step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.forwards: list[Progress] = []
        self.steps: list[Progress] = []
        self.momentum: list[Progress | None] = []

    def forward(self, views, labels, progress):
        self.forwards.append(progress)
        return super().forward(views, labels, progress)

    def before_step(self, progress):
        assert self.backbone[1].weight.grad is not None
        self.steps.append(progress)

    def update_momentum(self, progress):
        self.momentum.append(progress)

    def weight_decay(self, base, progress):
        return base + progress.step


@pytest.mark.parametrize("accumulate", [1, 2])
def test_stage_two_counts_its_own_steps(make_module, accumulate: int):
    module, loader = make_module(
        batch_size=4 // accumulate, make_method=Telling, handover=FixedHandOver(4)
    )
    module.num_steps, loader.accumulate = 9, accumulate
    fit(module, loader, epochs=3, accumulate=accumulate)
    method = module.method
    assert method.steps == [Progress(step, 5, 3) for step in range(5)]
    assert method.forwards == [p for p in method.steps for _ in range(accumulate)]
    assert method.momentum == [None] * 4 + [Progress(step, 5, 3) for step in range(1, 6)]
    assert Progress(5, 5, 3).epoch == 1
    (group,) = module.optimizers().param_groups
    assert group["weight_decay"] == pytest.approx(0.01 + 4)


def test_the_rate_follows_its_schedule_through_both_stages(make_module):
    settings = OptimizerSettings("sgd", 0.5, 0.0, "cosine", warmup_epochs=1)
    module, loader = make_module(optimizer=settings, handover=FixedHandOver(4))
    module.num_steps = 9
    rates = fit(module, loader, epochs=3).rates
    warmup = [0.5 * (step + 1) / 3 for step in range(3)]
    cosine = [0.5 * (0.001 + 0.999 * (1 + np.cos(np.pi * k / 5)) / 2) for k in range(6)]
    assert rates == pytest.approx(warmup + cosine, rel=1e-9)


# Clipping


@pytest.mark.parametrize("stage", [1, 2])
def test_clipping_the_classifier_does_not_shrink_the_algorithms_steps(make_module, stage: int):
    """Labels are for monitoring: with and without them the backbone has the same weights."""
    weights = []
    for num_classes in (0, NUM_CLASSES):
        options = {"handover": FixedHandOver(100)} if stage == 1 else {}
        module, loader = make_module(num_classes=num_classes, **options)
        fit(module, loader, epochs=2, gradient_clip_val=1e-3)
        weights.append(module.method.backbone[1].weight.detach().clone())
    assert torch.equal(weights[0], weights[1])


def test_gradients_are_clipped_at_the_norm_that_was_asked_for(make_module):
    module, loader = make_module(optimizer=OptimizerSettings("sgd", 1.0, 0.0, "constant"))
    before = [p.detach().clone() for p in module.method.parameters() if p.requires_grad]
    loader._num_batches = 1
    fit(module, loader, epochs=1, gradient_clip_val=1e-2)
    after = [p.detach() for p in module.method.parameters() if p.requires_grad]
    moved = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)])
    assert float(moved.norm()) == pytest.approx(1e-2, rel=1e-3)
