"""Backbones (rela.models.backbones) against torchvision's own models.

- the whole registry: the classifier and nothing else is removed, features are [B, D], and D is the
  width that torchvision's own classifier takes;
- small-image variants: a 3×3 stem of stride 1, no pooling, the rest unchanged;
- the seed decides the weights and does not change the global random state;
- timm's models, built for the size of the images where that matters;
- unknown names and images that are too small give errors that help.
"""

import re

import pytest
import timm
import torch
import torchvision.models as tv
from torch import nn
from torchvision.models.regnet import BlockParams

from rela.errors import ChoiceError
from rela.models.backbones import (
    assemble_backbone,
    build_backbone,
    feature_dim,
    model_names,
    parse_model_name,
)

NUM_CLASSES = 1000  # no other tensor of a torchvision model has as many rows


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch):
    """Models of any size without memory or arithmetic: shapes only."""
    widths = BlockParams.from_init_params

    def with_real_tensors(*args, **kwargs):  # RegNet computes its widths with tensors
        with torch.device("cpu"):
            return widths(*args, **kwargs)

    monkeypatch.setattr(BlockParams, "from_init_params", with_real_tensors)
    with torch.device("meta"):
        yield


def classifier(torchvision_name: str) -> nn.Module:
    auxiliary = torchvision_name in ("googlenet", "inception_v3")
    options = {"aux_logits": False, "init_weights": False} if auxiliary else {}
    return tv.get_model(torchvision_name, weights=None, **options)


def test_the_registry_is_the_whole_of_torchvision_classification():
    assert set(tv.list_models(module=tv)) <= set(model_names())


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("name", model_names())
def test_a_backbone_is_the_torchvision_model_without_its_classifier(name: str):
    original = classifier(parse_model_name(name).torchvision_name).state_dict()
    last_layer = {key for key, value in original.items() if value.shape[:1] == (NUM_CLASSES,)}
    (width,) = {original[key].shape[1] for key in last_layer if key.endswith("weight")}

    backbone = build_backbone(name)
    assert backbone.state_dict().keys() == original.keys() - last_layer
    assert feature_dim(backbone, 299 if name == "inception_v3" else 224) == width


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("name", [n for n in model_names() if parse_model_name(n).small])
def test_a_small_variant_keeps_the_resolution_of_its_images(name: str):
    backbone = build_backbone(name)
    maps = {}
    for layer in ("conv1", "maxpool", "layer1", "layer4"):
        backbone.get_submodule(layer).register_forward_hook(
            lambda module, args, output, layer=layer: maps.update({layer: output.shape[-2:]})
        )
    features = backbone(torch.zeros(2, 3, 32, 32))
    assert features.ndim == 2
    assert maps == {"conv1": (32, 32), "maxpool": (32, 32), "layer1": (32, 32), "layer4": (4, 4)}

    original = classifier(name.removesuffix("_small")).state_dict()
    reshaped = {k for k, v in backbone.state_dict().items() if v.shape != original[k].shape}
    assert reshaped == {"conv1.weight"}
    assert backbone.conv1.weight.shape == (64, 3, 3, 3)
    assert backbone.conv1.stride == (1, 1)


@pytest.mark.parametrize("name", ["resnet18_small", "mobilenet_v3_small", "googlenet"])
def test_weights_are_a_function_of_the_seed(name: str):
    first, again, other = (build_backbone(name, seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_a_seeded_backbone_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    build_backbone("resnet18_small", seed=3)
    assert torch.equal(torch.rand(4), expected)


def test_without_a_seed_the_global_random_state_decides():
    states = []
    for build in (
        lambda: build_backbone("resnet18"),
        lambda: build_backbone("resnet18"),
        tv.resnet18,
    ):
        torch.manual_seed(6)
        states.append(build().state_dict())
    for other in states[1:]:
        assert all(torch.equal(states[0][key], other[key]) for key in states[0])


def test_a_vision_transformer_is_built_for_the_image_size():
    with torch.device("meta"):
        backbone = build_backbone("vit_b_16", image_size=64)
        assert backbone(torch.zeros(2, 3, 64, 64)).shape == (2, 768)
        assert backbone.encoder.pos_embedding.shape[1] == 1 + (64 // 16) ** 2


@pytest.mark.parametrize(
    ("wrong", "suggested"),
    [
        ("resnet81", "resnet18"), ("resnet18_smal", "resnet18_small"), ("vit_b16", "vit_b_16"),
        ("???", "resnet18"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_answered_with_known_ones(wrong: str, suggested: str):
    with pytest.raises(ChoiceError, match=rf"(?s){re.escape(wrong)}.*{suggested}"):
        build_backbone(wrong)


@pytest.mark.parametrize(("name", "size"), [("alexnet", 16), ("inception_v3", 32), ("vgg11", 16)])
def test_images_that_are_too_small_are_refused_with_their_size(name: str, size: int):
    with torch.device("meta"):
        backbone = build_backbone(name)
    with pytest.raises(ChoiceError, match=f"{size}×{size}"):
        feature_dim(backbone, size)


def test_finding_the_width_leaves_the_model_as_it_was():
    backbone = build_backbone("resnet18_small", seed=0).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert feature_dim(backbone, 8) == 512
    assert backbone.training
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


# timm


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet", "timm:test_efficientnet"])
def test_a_timm_backbone_is_timms_model_without_its_classifier(name: str):
    backbone, classifier = assemble_backbone(name, 64, seed=3)
    whole = timm.create_model(name.removeprefix("timm:"), num_classes=7)
    assert backbone.state_dict().keys() == whole.state_dict().keys() - set(classifier)
    assert feature_dim(backbone, 64) == whole.num_features
    again, other = (build_backbone(name, 64, seed=s).state_dict() for s in (3, 4))
    assert all(torch.equal(again[k], v) for k, v in backbone.state_dict().items())
    assert any(not torch.equal(other[k], v) for k, v in backbone.state_dict().items())


def test_a_timm_transformer_is_built_for_its_images_and_takes_others():
    backbone = build_backbone("timm:test_vit", 64, seed=0).eval()
    assert backbone.pos_embed.shape[1] == 1 + 4 * 4
    assert backbone(torch.zeros(2, 3, 96, 96)).shape == (2, 64)


def test_a_model_that_gives_no_vectors_is_refused():
    with pytest.raises(ChoiceError, match=r"gives \[2, 4, 6, 6\]"):
        feature_dim(nn.Conv2d(3, 4, 3), 8)
