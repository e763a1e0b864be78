"""DINO's three sets of hyperparameters (rela.methods.dino), and its local crops.

- teacher temperature, momentum and weight decay have their closed forms, counted from the hand-over;
  all are constant in the reference;
- the last layer stays in the paper's first epoch; gradients are clipped with 16-bit numbers too;
- heads differ in layers, prototypes and batch norm; the paper's teacher begins as the student;
- the paper's result is the teacher, with the student's statistics of norms at the hand-over; the
  reference's is the student;
- local crops: their number, their size, and one line of error for a model that cannot take them.
"""

import math
import warnings

import pytest
import torch
import torchvision
from tiny_methods import BATCH, make_method, shrink_dino, some_labels, some_views
from torch import nn

from rela.errors import ChoiceError
from rela.methods.dino import DINO
from rela.methods.method import MethodOptions, Progress, momentum_at
from rela.methods.optimizers import build_optimizer
from rela.methods.parts.multi_crop import local_size
from rela.methods.swav import SwAV

STEPS_PER_EPOCH = 20


@pytest.fixture(autouse=True)
def small_dino(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_dino(monkeypatch)


def at(step: int, num_epochs: int = 200) -> Progress:
    return Progress(step, num_epochs * STEPS_PER_EPOCH, STEPS_PER_EPOCH)


def test_the_teachers_temperature_rises_linearly_for_thirty_epochs():
    method = make_method("dino", hyperparameters="paper")
    warmup = 30 * STEPS_PER_EPOCH
    found = [method.teacher_temperature(at(s)) for s in (0, warmup // 3, warmup, 2 * warmup)]
    assert found == pytest.approx([0.04, 0.05, 0.07, 0.07])


def test_in_a_short_stage_2_it_rises_for_three_tenths_of_it():
    method = make_method("dino", hyperparameters="paper")
    found = [method.teacher_temperature(at(s, num_epochs=10)) for s in (0, 30, 59, 60, 199)]
    assert found == pytest.approx([0.04, 0.055, 0.04 + 0.03 * 59 / 60, 0.07, 0.07])
    assert method.teacher_temperature(Progress(0, 1, 1)) == 0.07  # a single step


def test_weight_decay_grows_tenfold_along_a_half_cosine():
    method = make_method("dino", hyperparameters="paper")
    num_steps = 101
    for step in (0, 25, 50, 100):
        expected = 0.4 - 0.36 * (1 + math.cos(math.pi * step / (num_steps - 1))) / 2
        found = method.weight_decay(0.04, Progress(step, num_steps, 10))
        assert found == pytest.approx(expected)
    assert DINO.optimizer("paper", 100, 224).weight_decay == 0.04


def test_the_momentum_begins_anew_at_the_hand_over():
    assert momentum_at(None, 0.996, "cosine") == 0.99
    for step in (0, 25, 100):
        expected = 1 - 0.004 * (1 + math.cos(math.pi * step / 100)) / 2
        assert momentum_at(Progress(step, 101, 10), 0.996, "cosine") == pytest.approx(expected)
    assert momentum_at(Progress(100, 101, 10), 0.996, "constant") == 0.996


@pytest.mark.parametrize("kind", ["rela", "reference"])
@pytest.mark.parametrize("step", [0, 50, 3999])
def test_everything_is_constant_but_in_the_paper(step: int, kind: str):
    method = make_method("dino", hyperparameters=kind)
    assert method.teacher_temperature(at(step)) == 0.04
    assert method.weight_decay(0.01, at(step)) == 0.01
    with torch.no_grad():
        method.backbone[5].bias.zero_()
        method.momentum_backbone[5].bias.fill_(1.0)
    method.update_momentum(at(step))
    assert method.momentum_backbone[5].bias[0] == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("kind", "step", "frozen"),
    [("paper", 0, True), ("paper", STEPS_PER_EPOCH - 1, True), ("paper", STEPS_PER_EPOCH, False),
     ("reference", 0, False), ("rela", 0, False)],
)  # fmt: skip
def test_the_last_layer_stays_in_the_papers_first_epoch(kind: str, step: int, frozen: bool):
    method = make_method("dino", hyperparameters=kind)
    loss, _ = method(some_views(method), some_labels(), at(step))
    loss.backward()
    method.before_step(at(step))
    assert (method.projector.last_layer.weight_v.grad is None) == frozen
    assert method.projector.layers[0].weight.grad is not None


def test_gradients_can_be_clipped_with_16_bit_numbers():
    settings = DINO.optimizer("paper", 100, 224).for_batch(256)
    assert settings.clip_norm == 3.0
    optimizer = build_optimizer(settings, nn.Linear(2, 2).parameters())
    # Lightning refuses to clip for optimizers that unscale the gradients by themselves
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)


@pytest.mark.parametrize("kind", ["rela", "reference", "paper"])
def test_the_heads_are_those_of_each_setting(monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = make_method("dino", hyperparameters=kind)
    layers = [m for m in method.projector.layers if isinstance(m, nn.Linear)]
    widths = [layers[0].in_features, *(m.out_features for m in layers)]
    assert widths == ([12, 2048, 2048, 256] if kind == "paper" else [12, 2048, 256])
    prototypes = 65_536 if kind == "paper" else 2048
    assert method.projector.last_layer.weight_v.shape == (prototypes, 256)
    has_batch_norm = any(isinstance(m, nn.BatchNorm1d) for m in method.projector.modules())
    assert has_batch_norm == (kind != "paper")
    followers = method.momentum_projector.state_dict()
    same = [torch.equal(v, followers[k]) for k, v in method.projector.state_dict().items()]
    assert all(same) == (kind != "reference")


def test_the_references_head_is_one_hidden_layer_with_batch_norm(monkeypatch: pytest.MonkeyPatch):
    """2.1 million weights for 512 features; prototypes of length 1, by hand in float64."""
    monkeypatch.undo()
    options = MethodOptions(512, 16, hyperparameters="reference")
    head = DINO(nn.Identity(), options).projector
    assert sum(p.numel() for p in head.parameters() if p.ndim == 2) == (
        512 * 2048 + 2048 * 256 + 256 * 2048 + 2048  # the last: lengths of the prototypes
    )
    features = torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
    first, norm, _, second = head.layers
    x = features.double() @ first.weight.double().T
    x = (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + norm.eps)
    x = x * (1 + torch.erf(x / math.sqrt(2))) / 2 @ second.weight.double().T + second.bias.double()
    prototypes = head.last_layer.weight_v.double()
    expected = (x / x.norm(dim=1, keepdim=True)) @ (
        prototypes / prototypes.norm(dim=1, keepdim=True)
    ).T
    torch.testing.assert_close(head(features).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["rela", "reference", "paper"])
def test_the_teacher_is_exported_but_in_the_reference(kind: str):
    method = make_method("dino", hyperparameters=kind)
    expected = method.backbone if kind == "reference" else method.momentum_backbone
    assert method.exported is expected
    for name in ("byol", "mocov2", "mocov3", "simclr"):
        other = make_method(name)
        assert other.exported is other.backbone


def test_after_stage_1_the_teacher_can_be_evaluated():
    """Its weights and the statistics of its norms are the student's, so that features are alike."""
    method = make_method("dino", hyperparameters="paper")
    images = some_views(method)[0] * 5 + 3
    for _ in range(40):
        method.backbone(images)
        method.update_momentum(None)
    method.eval()
    torch.testing.assert_close(method.momentum_backbone(images), method.backbone(images))


@pytest.mark.parametrize(
    ("kind", "chosen", "expected"),
    [
        ("reference", None, 0),
        ("reference", 4, 4),
        ("rela", None, 0),
        ("paper", None, 8),
        ("paper", 0, 0),
    ],
)
def test_local_crops_are_those_of_the_setting_or_as_chosen(kind, chosen, expected):
    method = make_method("dino", hyperparameters=kind, local_crops=chosen, image_size=32)
    assert [view.size for view in method.views()] == [32, 32] + [14] * expected
    seen: list[tuple[int, ...]] = []
    method.momentum_backbone.register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape)))
    method(some_views(method), some_labels(), at(0))
    assert seen == [(BATCH, 3, 32, 32)] * 2  # the teacher sees only full-sized views


@pytest.mark.parametrize(
    ("image_size", "expected"), [(224, 96), (448, 192), (64, 27), (32, 14), (16, 8), (4, 4)]
)
def test_local_crops_have_the_published_proportion(image_size: int, expected: int):
    assert local_size(image_size) == expected


@pytest.mark.parametrize("method", [DINO, SwAV])
def test_a_model_that_cannot_take_them_is_refused_at_once(method: type[DINO | SwAV]):
    def vit() -> nn.Module:
        model = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32)
        model.heads = nn.Identity()
        return model

    options = {"feature_dim": 16, "image_size": 32, "hyperparameters": "paper"}
    with pytest.raises(ChoiceError, match=r"14×14.*--local-crops 0.*timm:") as caught:
        method(vit(), MethodOptions(**options))
    assert "\n" not in str(caught.value)
    built = method(vit(), MethodOptions(**options, local_crops=0))
    assert len(built.views()) == 2
