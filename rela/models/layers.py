"""Features of inner layers of a backbone, and feature maps for segmentation.

Supports the models of torchvision, timm and open_clip. A *prefix token* is a token of a vision
transformer that does not represent a patch: the class token and registers.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn

from rela.errors import ChoiceError

TOKEN_LAYERS = ("class", "patches", "class+patches")
# The module of torchvision's CNNs whose output is the last feature map.
_LAST_MAPS: tuple[tuple[Any, str], ...] = (
    (tv.ResNet, "layer4"),
    (tv.ShuffleNetV2, "conv5"),
    (tv.RegNet, "trunk_output"),
    ((tv.MobileNetV2, tv.MobileNetV3, tv.EfficientNet, tv.ConvNeXt, tv.VGG), "features"),
)


@dataclass(frozen=True)
class _Tokens:
    """The module that outputs a vision transformer's tokens [B, N, C]: its last normalisation."""

    module: str
    num_prefix: int
    has_class: bool
    patch_size: tuple[int, int]


class LayerFeatures(nn.Module):
    """A backbone's features [B, D] at a layer other than its last.

    `layer` is one of TOKEN_LAYERS, for vision transformers, or the dotted name of a module. Maps
    [B, C, H, W] are averaged over space, tokens [B, N, C] over tokens (of known vision transformers:
    over patches), features [B, C] are used as they are. Raises ChoiceError for layers that the backbone
    does not have and for other outputs.
    """

    def __init__(self, backbone: nn.Module, layer: str) -> None:
        super().__init__()
        self.backbone, self.layer = backbone, layer
        self._tokens = _find_tokens(backbone)
        if layer in TOKEN_LAYERS:
            name = type(backbone).__name__
            if self._tokens is None:
                raise ChoiceError(
                    f"--layer {layer}: {name} is not a known vision transformer; choose one of "
                    f"its modules, such as {list(dict(backbone.named_children()))[-1]}"
                )
            if "class" in layer and not self._tokens.has_class:
                raise ChoiceError(f"--layer {layer}: this {name} has no class token; use patches")
            return
        modules = [name for name, _ in backbone.named_modules() if name]
        if layer not in modules:
            top = [name for name, _ in backbone.named_children()]
            close = difflib.get_close_matches(layer, modules, n=4)
            meant = f"did you mean {', '.join(close)}? " if close else ""
            raise ChoiceError(
                f"--layer {layer}: no such layer; {meant}The outermost are {', '.join(top)}"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] → features [B, D]."""
        if self.layer in TOKEN_LAYERS and self._tokens is not None:
            tokens = _outputs(self.backbone, self._tokens.module, images)
            class_token = tokens[:, 0]
            patches = tokens[:, self._tokens.num_prefix :].mean(1)
            chosen = {"class": [class_token], "patches": [patches]}
            return torch.cat(chosen.get(self.layer, [class_token, patches]), 1)
        output = _outputs(self.backbone, self.layer, images)
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if isinstance(output, Tensor) and output.ndim == 4:
            space = (1, 2) if _is_channels_last(self.backbone, self.layer) else (2, 3)
            return output.mean(space)
        if isinstance(output, Tensor) and output.ndim == 3:
            return output[:, self._tokens.num_prefix if self._tokens else 0 :].mean(1)
        if isinstance(output, Tensor) and output.ndim == 2:
            return output
        raise ChoiceError(
            f"--layer {self.layer} returns {shape}; choose one that returns maps [B, C, H, W], tokens "
            "[B, N, C] or features [B, C]"
        )


def spatial_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """The last feature map: images [B, 3, H, W] → [B, C, h, w].

    A CNN's output before global pooling, or a vision transformer's patch tokens after its last
    normalisation, arranged as in the image. Raises ChoiceError for other models.
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
        f"the feature map of {type(backbone).__name__} is unknown; use a ResNet, a vision transformer, "
        "or a CNN of timm"
    )


def _find_tokens(backbone: nn.Module) -> _Tokens | None:
    """None if `backbone` is not a known vision transformer."""
    if isinstance(backbone, tv.VisionTransformer):
        return _Tokens("encoder", 1, True, (backbone.patch_size, backbone.patch_size))
    model: Any = backbone  # attributes of classes that may not be installed
    if _is_timm(backbone) and hasattr(model, "num_prefix_tokens") and hasattr(model, "norm"):
        has_class = getattr(model, "cls_token", None) is not None
        return _Tokens(
            "norm", model.num_prefix_tokens, has_class, tuple(model.patch_embed.patch_size)
        )
    if (
        type(backbone).__module__ == "open_clip.transformer"
        and model.attn_pool is None
        and not model.final_ln_after_pool
    ):
        return _Tokens("ln_post", 1, True, tuple(model.patch_size))
    return None


def _is_timm(backbone: nn.Module) -> bool:
    return type(backbone).__module__.startswith("timm.")


def _is_channels_last(backbone: nn.Module, layer: str) -> bool:
    """Whether 4-dimensional outputs of `layer` are [B, H, W, C], as in Swin transformers."""
    if isinstance(backbone, tv.SwinTransformer):
        return layer.split(".")[0] in ("features", "norm")
    return str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")


def _outputs(backbone: nn.Module, module: str, images: Tensor) -> Any:
    """The output of `module` in a forward pass of `backbone`."""
    found: list[Any] = []
    hook = backbone.get_submodule(module).register_forward_hook(
        lambda _module, _arguments, output: found.append(output)
    )
    try:
        backbone(images)
    finally:
        hook.remove()
    if not found:
        raise ChoiceError(f"--layer {module} is not part of the model's forward pass")
    return found[-1]
