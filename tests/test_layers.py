"""Features from inside a backbone (rela.layers), against a plain computation.

- feature maps: torchvision's and timm's CNNs before pooling, vision transformers' patch tokens where
  the patches lie; other models are refused.
"""

import pytest
import timm
import torch
from torch import Tensor, nn

from rela.backbones import build_backbone
from rela.errors import ChoiceError
from rela.layers import spatial_features


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))


def torchvision_tokens(backbone: nn.Module, batch: Tensor) -> Tensor:
    """torchvision's own forward up to the tokens [B, 1 + N, C]."""
    patches = backbone._process_input(batch)
    return backbone.encoder(
        torch.cat([backbone.class_token.expand(len(batch), -1, -1), patches], 1)
    )


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
    ],
)
def test_a_cnns_map_is_what_it_pools(name: str, size: int, shape: tuple[int, ...]):
    backbone = build_backbone(name, size, seed=0).eval()
    maps = spatial_features(backbone, images(size))
    assert maps.shape == (2, *shape)
    if not name.startswith("mobilenet"):  # which has a layer between the pool and the features
        torch.testing.assert_close(maps.mean((2, 3)), backbone(images(size)))


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "swin_tiny_patch4_window7_224"]
)
def test_a_timm_cnns_map_is_what_it_pools(name: str):
    backbone, size = timm_model(name), 224 if name.startswith("swin") else 64
    maps = spatial_features(backbone, images(size))
    assert maps.shape[2:] == ((7, 7) if size == 224 else (2, 2))
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
def test_registers_are_no_patches():
    backbone = timm_model("vit_small_patch16_dinov3.lvd1689m", img_size=64)
    tokens = backbone.forward_features(images(64))
    assert tokens.shape[1] == 1 + 4 + 16
    maps = spatial_features(backbone, images(64))
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), tokens[:, 5:])


def test_a_model_without_a_known_map_is_refused():
    with pytest.raises(ChoiceError, match="AlexNet"):
        spatial_features(build_backbone("alexnet", seed=0), images(64))
