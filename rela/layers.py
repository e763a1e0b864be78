"""Inside a backbone: features of another layer than the last, and feature maps for segmentation.

Understood are torchvision's, timm's and open_clip's models. A *prefix token* is a token of a vision
transformer that stands for no patch: the class token, and registers.
"""

from dataclasses import dataclass
from typing import Any

import torchvision.models as tv
from torch import Tensor, nn

from rela.errors import ChoiceError

POOLED = "pooled"  # the backbone's own features
TOKEN_LAYERS = ("class", "patches", "class+patches")
# The module of torchvision's CNNs that gives the last feature map.
_LAST_MAPS: tuple[tuple[Any, str], ...] = (
    (tv.ResNet, "layer4"),
    (tv.ShuffleNetV2, "conv5"),
    (tv.RegNet, "trunk_output"),
    ((tv.MobileNetV2, tv.MobileNetV3, tv.EfficientNet, tv.ConvNeXt, tv.VGG), "features"),
)


@dataclass(frozen=True)
class _Tokens:
    """Where a vision transformer has its tokens [B, N, C]: after its last normalisation."""

    module: str
    num_prefix: int
    has_class: bool
    patch_size: tuple[int, int]


def spatial_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """The last feature map: images [B, 3, H, W] → [B, C, h, w].

    A CNN's output before global pooling, or a vision transformer's patch tokens after its last
    normalisation, laid out as they lie in the image. Raises ChoiceError for other models.
    """
    tokens = _find_tokens(backbone)
    if tokens is not None:
        patches: Tensor = _outputs(backbone, tokens.module, images)[:, tokens.num_prefix :]
        height, width = (s // p for s, p in zip(images.shape[2:], tokens.patch_size, strict=True))
        return patches.transpose(1, 2).reshape(len(images), -1, height, width)
    for kind, module in _LAST_MAPS:
        if isinstance(backbone, kind):
            last: Tensor = _outputs(backbone, module, images)
            return last
    if _is_timm(backbone):
        maps: Tensor = backbone.forward_features(images)  # type: ignore[operator]
        if _is_channels_last(backbone, ""):
            maps = maps.movedim(-1, 1)
        if maps.ndim == 4:
            return maps
    raise ChoiceError(
        f"no feature map is known of {type(backbone).__name__}; use a ResNet, a vision transformer, "
        "or a CNN of timm"
    )


def _find_tokens(backbone: nn.Module) -> _Tokens | None:
    """None if `backbone` is no vision transformer that is known."""
    if isinstance(backbone, tv.VisionTransformer):
        return _Tokens("encoder", 1, True, (backbone.patch_size, backbone.patch_size))
    model: Any = backbone  # attributes of classes that may not be installed
    if _is_timm(backbone) and hasattr(model, "num_prefix_tokens") and hasattr(model, "norm"):
        has_class = getattr(model, "cls_token", None) is not None
        return _Tokens(
            "norm", model.num_prefix_tokens, has_class, tuple(model.patch_embed.patch_size)
        )
    if type(backbone).__module__ == "open_clip.transformer" and hasattr(model, "ln_post"):
        return _Tokens("ln_post", 1, True, tuple(model.patch_size))
    return None


def _is_timm(backbone: nn.Module) -> bool:
    return type(backbone).__module__.startswith("timm.")


def _is_channels_last(backbone: nn.Module, layer: str) -> bool:
    """Whether 4-dimensional outputs of `layer` are [B, H, W, C]: both libraries' Swin transformers."""
    if isinstance(backbone, tv.SwinTransformer):
        return layer.split(".")[0] in ("features", "norm")
    return str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")


def _outputs(backbone: nn.Module, module: str, images: Tensor) -> Any:
    """What `module` gives while `backbone` looks at `images`."""
    found: list[Any] = []
    hook = backbone.get_submodule(module).register_forward_hook(
        lambda _module, _arguments, output: found.append(output)
    )
    try:
        backbone(images)
    finally:
        hook.remove()
    return found[-1]
