"""Features from inside a backbone (rela.models.layers), against a plain computation.

- feature maps: torchvision's and timm's CNNs before pooling, vision transformers' patch tokens where
  the patches lie; other models are refused;
- class and patch tokens of torchvision's, timm's and open_clip's vision transformers, registers
  apart; modules by name, channels first or last; layers that are not there are answered with those
  that are.
"""

import open_clip
import pytest
import timm
import torch
from torch import Tensor, nn

from rela.errors import ChoiceError
from rela.models.backbones import build_backbone, feature_dim
from rela.models.layers import LayerFeatures, spatial_features

SWIN, REGISTERS = "swin_tiny_patch4_window7_224", "vit_small_patch16_dinov3.lvd1689m"


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))


def torchvision_tokens(backbone: nn.Module, batch: Tensor) -> Tensor:
    """torchvision's own forward up to the tokens [B, 1 + N, C]."""
    patches = backbone._process_input(batch)
    class_token = backbone.class_token.expand(len(batch), -1, -1)
    return backbone.encoder(torch.cat([class_token, patches], 1))


def timm_model(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **options).eval()


# Feature maps


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("resnet18", 64, (512, 2, 2)),
        ("resnet18_small", 16, (512, 2, 2)),
        ("resnet50", 64, (2048, 2, 2)),
        ("shufflenet_v2_x0_5", 64, (1024, 2, 2)),
        ("mobilenet_v3_small", 64, (576, 2, 2)),
        ("efficientnet_b0", 64, (1280, 2, 2)),
        ("regnet_y_400mf", 64, (440, 2, 2)),
        ("test_resnet", 64, (2, 2)),
        ("test_efficientnet", 64, (2, 2)),
        (SWIN, 224, (7, 7)),
    ],
)
def test_a_cnns_map_is_what_it_pools(name: str, size: int, shape: tuple[int, ...]):
    is_timm = name.startswith(("test_", "swin"))
    backbone = timm_model(name) if is_timm else build_backbone(name, size, seed=0).eval()
    maps = spatial_features(backbone, images(size))
    assert maps.shape[-len(shape) :] == shape and len(maps) == 2
    if not name.startswith("mobilenet"):  # which has a layer between the pool and the features
        torch.testing.assert_close(maps.mean((2, 3)), backbone(images(size)))


@torch.no_grad()
@pytest.mark.parametrize("width", [32, 96])
def test_patches_lie_where_they_are_in_the_image(width: int):
    """A tall and a wide image: the map has their shape, and patches follow row by row."""
    batch = torch.randn(2, 3, 64, width)
    backbone = timm_model("test_vit", img_size=64, dynamic_img_size=True)
    maps = spatial_features(backbone, batch)
    assert maps.shape == (2, 64, 4, width // 16)
    tokens = backbone.forward_features(batch)[:, 1:]
    torch.testing.assert_close(maps[:, :, 1, 1], tokens[:, width // 16 + 1])


@torch.no_grad()
def test_torchvisions_patch_tokens_are_a_map():
    backbone = build_backbone("vit_b_32", 64, seed=0).eval()
    maps = spatial_features(backbone, images(64))
    tokens = torchvision_tokens(backbone, images(64))
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(maps[:, :, row, column], tokens[:, 1 + 2 * row + column])


@torch.no_grad()
def test_registers_are_not_patches():
    backbone = timm_model(REGISTERS, img_size=64)
    tokens = backbone.forward_features(images(64))
    assert tokens.shape[1] == 1 + 4 + 16
    maps = spatial_features(backbone, images(64))
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), tokens[:, 5:])


def test_a_model_without_a_known_map_is_refused():
    with pytest.raises(ChoiceError, match="AlexNet"):
        spatial_features(build_backbone("alexnet", seed=0), images(64))


# Layers


@torch.no_grad()
@pytest.mark.parametrize("library", ["torchvision", "timm", "timm with registers", "open_clip"])
def test_class_and_patch_tokens_equal_a_plain_computation(library: str):
    if library == "torchvision":
        backbone = build_backbone("vit_b_32", 64, seed=0).eval()
        tokens, prefix = torchvision_tokens(backbone, images(64)), 1
    elif library.startswith("timm"):
        name, prefix = ("test_vit", 1) if library == "timm" else (REGISTERS, 5)
        backbone = timm_model(name, img_size=64)
        tokens = backbone.forward_features(images(64))
    else:
        backbone = open_clip.transformer.VisionTransformer(
            image_size=64, patch_size=32, width=64, layers=2, heads=2, mlp_ratio=2.0, output_dim=16
        ).eval()
        backbone.output_tokens, backbone.proj = True, None
        class_token, patches = backbone(images(64))
        backbone.output_tokens = False
        tokens, prefix = torch.cat([class_token[:, None], patches], 1), 1
    expected = {"class": tokens[:, 0], "patches": tokens[:, prefix:].mean(1)}
    expected["class+patches"] = torch.cat(list(expected.values()), 1)
    for layer, values in expected.items():
        features = LayerFeatures(backbone, layer)
        torch.testing.assert_close(features(images(64)), values)
        assert feature_dim(features, 64) == values.shape[1]


@torch.no_grad()
def test_a_module_by_name():
    backbone = build_backbone("resnet18_small", seed=0).eval()
    found = backbone.layer1(backbone.relu(backbone.bn1(backbone.conv1(images(16)))))
    maps = LayerFeatures(backbone, "layer2.0")
    torch.testing.assert_close(maps(images(16)), backbone.layer2[0](found).mean((2, 3)))
    pooled = LayerFeatures(backbone, "fc")  # the identity in the classifier's place
    torch.testing.assert_close(pooled(images(16)), backbone(images(16)))


@torch.no_grad()
def test_a_transformers_block_is_averaged_over_its_patches():
    backbone = timm_model("test_vit", img_size=64)
    _, (tokens,) = backbone.forward_intermediates(images(64), indices=[1], output_fmt="NLC")
    features = LayerFeatures(backbone, "blocks.1")
    torch.testing.assert_close(features(images(64)), tokens.mean(1))


@torch.no_grad()
@pytest.mark.parametrize(
    ("library", "layer", "width"), [("torchvision", "features.3", 192), ("timm", "layers.1", 192)]
)
def test_maps_of_swin_transformers_have_their_channels_last(library: str, layer: str, width: int):
    if library == "torchvision":
        backbone = build_backbone("swin_t", seed=0).eval()
        maps = backbone.features[:4](images(64))
    else:
        backbone = timm_model(SWIN, img_size=64)
        maps = backbone.layers[:2](backbone.patch_embed(images(64)))
    features = LayerFeatures(backbone, layer)(images(64))
    assert features.shape == (2, width)
    torch.testing.assert_close(features, maps.mean((1, 2)))


@torch.no_grad()
def test_all_of_a_layer_and_several_at_once():
    backbone = build_backbone("resnet18_small", seed=0).eval()
    maps = backbone.layer1(backbone.relu(backbone.bn1(backbone.conv1(images(16)))))
    flat = LayerFeatures(backbone, "layer1:flat")(images(16))
    torch.testing.assert_close(flat, maps.flatten(1))
    several = LayerFeatures(backbone, "pooled", "layer1", "layer1:flat")(images(16))
    torch.testing.assert_close(
        several, torch.cat([backbone(images(16)), maps.mean((2, 3)), flat], 1)
    )
    vit = timm_model("test_vit", img_size=64)
    patches = vit.forward_features(images(64))[:, 1:]
    torch.testing.assert_close(LayerFeatures(vit, "patches:flat")(images(64)), patches.flatten(1))


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("resnet18", "pooled:flat", "--layer pooled:flat: pooled is one vector already"),
        ("timm:test_vit", "class:flat", "use --layer class"),
        ("resnet18", "layer9", "layer4"),
        ("resnet18", "nothing", "avgpool"),
        ("resnet18", "class", "vision transformer"),
        ("timm:vit_medium_patch16_gap_240", "class", "no class token; use patches"),
        ("timm:test_vit", "blocks.0.attn.attn_drop", "not part of the model.s forward pass"),
    ],
)
def test_an_unknown_layer_is_answered_with_known_ones(name: str, layer: str, message: str):
    with torch.device("meta"):
        backbone = build_backbone(name, 240).eval()
    with pytest.raises(ChoiceError, match=message):
        LayerFeatures(backbone, layer)(torch.zeros(2, 3, 240, 240, device="meta"))


def test_a_layer_that_gives_several_tensors_is_refused():
    class Twins(nn.Module):
        def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
            return batch, batch

    with pytest.raises(ChoiceError, match="--layer 0 returns tuple"):
        LayerFeatures(nn.Sequential(Twins()), "0")(images(8))
