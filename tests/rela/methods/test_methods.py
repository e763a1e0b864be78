"""What all algorithms of rela.methods have in common, on a tiny backbone.

- the loss falls when the same batch is learned a few times;
- gradients reach every weight of the backbone, and never a momentum network;
- the momentum update equals its formula in both stages, and changes nothing else;
- features are those of the full-sized views, as the backbone gives them;
- with 16-bit arithmetic the loss is still computed in float32, and the gradient points the same way;
- a state dict holds everything: the next step from it has the same bits;
- views have the distributions of lightly's transforms, without blur for small images;
- heads are never wider than four times the features.
"""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightly.transforms import (
    DINOTransform,
    MoCoV2Transform,
    SimCLRTransform,
    SimSiamTransform,
    SwaVTransform,
    VICRegTransform,
)
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from lightly_views import view_of
from tiny_methods import (
    ALGORITHMS,
    BATCH,
    SECOND_EPOCH,
    SIZE,
    WIDTH,
    make_method,
    perturb_momentum_networks,
    shrink_dino,
    some_labels,
    some_views,
)
from torch import Tensor, nn
from torchvision.transforms import RandomResizedCrop

from rela.errors import ChoiceError
from rela.methods import METHODS, method_class
from rela.methods.method import Method, Progress, head_width

MOMENTA = {"byol": 0.99, "dino": 0.996, "mocov2": 0.99, "mocov3": 0.99}  # for small images
EACH = pytest.mark.parametrize("name", ALGORITHMS)


@pytest.fixture(autouse=True)
def small_dino(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_dino(monkeypatch)


def train_step(
    method: Method, optimizer: torch.optim.Optimizer, views: list[Tensor], progress: Progress
) -> float:
    optimizer.zero_grad()
    loss, _ = method(views, some_labels(), progress)
    loss.backward()
    method.before_step(progress)
    optimizer.step()
    method.update_momentum(replace(progress, step=progress.step + 1))
    return float(loss.detach())


def sgd(method: Method, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr, momentum=0.9)


@EACH
def test_the_loss_falls(name: str):
    method = make_method(name)
    views = some_views(method)
    for _ in range(4):
        method(views, some_labels(), SECOND_EPOCH)  # MoCo's queue and DINO's centre settle
    optimizer = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), lr=3e-3)
    losses = [train_step(method, optimizer, views, SECOND_EPOCH) for _ in range(7)]
    assert losses[-1] < losses[0] - 0.03 * abs(losses[0])


@EACH
def test_gradients_reach_the_backbone_and_no_momentum_network(name: str):
    method = make_method(name)
    perturb_momentum_networks(method)
    loss, _ = method(some_views(method), some_labels(), SECOND_EPOCH)
    assert loss.shape == ()
    loss.backward()
    for parameter in method.backbone.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0
    followers = {n: p for n, p in method.named_parameters() if n.startswith("momentum_")}
    assert bool(followers) == method.has_momentum
    assert all(p.grad is None and not p.requires_grad for p in followers.values())


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("name", MOMENTA)
def test_the_momentum_update_equals_its_formula(name: str, stage: int):
    method = make_method(name)
    perturb_momentum_networks(method)
    before = copy.deepcopy(method.state_dict())
    momentum = 0.99 if stage == 1 else MOMENTA[name]
    method.update_momentum(None if stage == 1 else replace(SECOND_EPOCH, step=0))
    parameters = {n for n, _ in method.named_parameters()}
    for key, value in method.state_dict().items():
        expected = before[key].double()
        if key in parameters and key.startswith("momentum_"):
            online = before[key.removeprefix("momentum_")].double()
            expected = momentum * expected + (1 - momentum) * online
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - set(MOMENTA)))
def test_others_have_nothing_to_update(name: str):
    method = make_method(name)
    before = copy.deepcopy(method.state_dict())
    method.update_momentum(SECOND_EPOCH)
    assert not method.has_momentum
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@EACH
def test_features_are_the_backbones_of_the_full_sized_views(name: str):
    method = make_method(name)
    views = some_views(method)
    _, features = method(views, some_labels(), SECOND_EPOCH)
    assert features
    for view, found in zip(views, features, strict=False):
        assert view.shape[-1] == SIZE and found.shape == (BATCH, WIDTH)
        torch.testing.assert_close(found, method.backbone(view))


@EACH
def test_with_16_bit_numbers_the_loss_is_the_same_within_their_precision(name: str):
    losses, gradients = [], []
    for mixed in (False, True):
        method = make_method(name)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss, _ = method(some_views(method), some_labels(), SECOND_EPOCH)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in method.backbone.parameters()]))
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-2, atol=1e-2)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.97


@EACH
def test_the_next_step_from_a_state_dict_has_the_same_bits(name: str):
    first = make_method(name)
    optimizer = sgd(first)
    for _ in range(2):
        train_step(first, optimizer, some_views(first), SECOND_EPOCH)
    second = make_method(name, seed=5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    views = some_views(first, seed=3)
    losses = [train_step(m, sgd(m), views, SECOND_EPOCH) for m in (first, second)]
    assert losses[0] == losses[1]
    for key, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[key]), key


def lightly_transforms(name: str, size: int, blur: bool) -> list[tuple[Any, int]]:
    """lightly's transforms with the sizes they crop to; blur as they have it, or none."""
    none: dict[str, Any] = {} if blur else {"gaussian_blur": 0.0}
    local = {16: 8, 32: 14, 96: 41, 224: 96}[size]
    if name in ("byol", "barlowtwins", "mocov3"):
        scale = {"min_scale": 0.2} if name == "mocov3" else {}
        pair = (
            BYOLView1Transform(size, **none, **scale),
            BYOLView2Transform(size, **none, **scale),
        )
        return [(transform, size) for transform in pair]
    if name in ("dino", "swav"):
        if name == "dino":
            dino_blur = {} if blur else {"gaussian_blur": (0.0, 0.0, 0.0)}
            crops = DINOTransform(size, local_crop_size=local, n_local_views=8, **dino_blur)
        else:
            crops = SwaVTransform(crop_sizes=(size, local), **none)
        sizes = [size, size] + [local] * (len(crops.transforms) - 2)
        return list(zip(crops.transforms, sizes, strict=True))
    kinds = {
        "simclr": SimCLRTransform,
        "mocov2": MoCoV2Transform,
        "simsiam": SimSiamTransform,
        "vicreg": VICRegTransform,
    }
    if name == "simclr" and not blur:
        none["cj_strength"] = 0.5
    return [(transform, size) for transform in kinds[name](size, **none).transforms]


@pytest.mark.parametrize("size", [16, 32, 96, 224])
@pytest.mark.parametrize("name", [n for n in ALGORITHMS if n != "supervised"])
def test_the_views_are_those_of_lightlys_transform(name: str, size: int):
    found = make_method(name, image_size=size).views()
    for view, (transform, view_size) in zip(
        found, lightly_transforms(name, size, blur=size > 32), strict=True
    ):
        assert view.row() == pytest.approx(view_of(transform, view_size).row())


def test_supervised_images_are_cropped_and_flipped_alone():
    (view,) = make_method("supervised", image_size=224).views()
    crop = RandomResizedCrop(224)
    assert (view.size, view.scale, view.ratio) == (224, crop.scale, crop.ratio)
    assert view.flip_probability == 0.5
    assert {
        view.jitter_probability, view.gray_probability,
        view.blur_probability, view.solarize_probability,
    } == {0.0}  # fmt: skip


def test_heads_are_as_published_but_at_most_four_times_the_features():
    assert head_width(8192, 2048) == 8192
    assert head_width(8192, 512) == 2048
    assert head_width(2048, 1024) == 2048
    for name in ("barlowtwins", "vicreg", "simsiam", "mocov3", "swav"):
        projector = make_method(name).projector
        widths = {m.out_features for m in projector.modules() if isinstance(m, nn.Linear)}
        assert max(widths - {128, 256}) == 4 * WIDTH


def test_methods_are_found_by_name():
    assert len(set(METHODS)) == len(METHODS)
    for name in METHODS:
        assert issubclass(method_class(name), Method)
    with pytest.raises(ChoiceError, match="no method 'boyl'; expected one of byol, dino"):
        method_class("boyl")


@pytest.mark.parametrize("name", ["byol", "swav", "supervised"])
def test_the_smallest_crop_can_be_chosen_for_full_sized_views(name: str):
    chosen = make_method(name, min_scale=0.6)
    for plain, found in zip(chosen.views(), chosen.stage2_views(), strict=True):
        full = plain.size == SIZE
        assert found.scale == ((0.6, 1.0) if full else plain.scale)
        assert replace(found, scale=plain.scale) == plain
    assert make_method(name).stage2_views() == make_method(name).views()


@pytest.mark.parametrize(
    ("image_size", "least"), [(28, 0.5), (32, 0.5), (64, 0.350), (224, 0.08), (384, 0.08)]
)
def test_views_of_small_images_show_more_of_them(image_size: int, least: float):
    """0.5 at 32 pixels, the published 0.08 at 224, and halfway between on a logarithmic scale."""
    byol, dino = (
        make_method(name, hyperparameters="rela", image_size=image_size)
        for name in ("byol", "dino")
    )
    assert [view.scale for view in byol.stage2_views()] == [
        (pytest.approx(least, abs=1e-3), 1.0)
    ] * 2
    # never less than the method's own
    assert dino.stage2_views()[0].scale == (pytest.approx(max(0.4, least), abs=1e-3), 1.0)
