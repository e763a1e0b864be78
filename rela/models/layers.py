"""Features of inner layers of a backbone, and feature maps for segmentation.

Supports the models of torchvision, timm and open_clip. A *prefix token* is a token of a vision
transformer that does not represent a patch: the class token and registers.
"""

import copy
import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torchvision.models as tv
from torch import Tensor, nn

from rela.errors import ChoiceError

POOLED = "pooled"  # a backbone's own features, as in rela.priors.prior
FLAT = ":flat"  # after the name of a layer whose output is not pooled
_GRID = re.compile(
    r":(\d+)x\1"
)  # after the name of a layer whose map is pooled to so many positions
_FORWARD_FEATURES = "forward_features"  # in the place of a module
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
    """A backbone's features [B, D] at one layer or several, side by side, from one forward pass.

    A layer is POOLED, the backbone's own output; one of TOKEN_LAYERS, for vision transformers; or the dotted
    name of a module. Maps [B, C, H, W] are averaged over space, tokens [B, N, C] over tokens (of known vision
    transformers: over patches), features [B, C] are used as they are. `LAYER:flat` is all of a module's
    output, or all patch tokens, in one row: [B, C · H · W] of maps, channels outermost, [B, N · C] of tokens.
    `LAYER:7x7` is a map of 7 × 7 positions, each a mean: [B, 49 · C], row by row, channels innermost; that of
    POOLED is the last map, see `features_and_map`.
    Raises ChoiceError for layers that the backbone does not have and for other outputs.
    """

    def __init__(self, backbone: nn.Module, *layers: str) -> None:
        super().__init__()
        self.backbone, self.layers = backbone, layers
        self._tokens = _find_tokens(backbone)
        for layer in layers:
            self._check(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] → features [B, D]."""
        modules = {layer: self._module(layer) for layer in self.layers}
        outputs = _outputs(self.backbone, set(modules.values()), images)
        found = []
        for layer, module in modules.items():
            if grid := _GRID.search(layer):
                maps = _as_map(self.backbone, self._tokens, module, outputs[module], images)
                found.append(_pooled_to(int(grid[1]), maps, layer))
            else:
                found.append(self._features(layer, outputs[module]))
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _check(self, layer: str) -> None:
        name, tokens = _name(layer), self._tokens
        backbone, model = self.backbone, type(self.backbone).__name__
        if layer == POOLED or (name == POOLED and _GRID.search(layer)):
            return
        if name == POOLED or (name in TOKEN_LAYERS and layer != name != "patches"):
            raise ChoiceError(f"--layer {layer}: {name} is one vector already; use --layer {name}")
        if name in TOKEN_LAYERS:
            if tokens is None:
                raise ChoiceError(
                    f"--layer {layer}: {model} is not a known vision transformer; choose one of "
                    f"its modules, such as {list(dict(backbone.named_children()))[-1]}"
                )
            if "class" in name and not tokens.has_class:
                raise ChoiceError(f"--layer {layer}: this {model} has no class token; use patches")
            return
        if "," in name:
            raise ChoiceError(f"--layer {layer} names several layers; give one of them")
        modules = [each for each, _ in backbone.named_modules() if each]
        if name not in modules:
            top = [each for each, _ in backbone.named_children()]
            close = difflib.get_close_matches(name, modules, n=4)
            meant = f"did you mean {', '.join(close)}? " if close else ""
            the = "The" if close else "the"
            raise ChoiceError(
                f"--layer {layer}: no such layer; {meant}{the} outermost are {', '.join(top)}"
            )

    def _module(self, layer: str) -> str:
        """The module whose output has the layer's features; empty for the backbone itself."""
        name = _name(layer)
        if name in TOKEN_LAYERS and self._tokens is not None:
            return self._tokens.module
        if name == POOLED and _GRID.search(layer):
            return _last_module(self.backbone, self._tokens)
        return "" if name == POOLED else name

    def _features(self, layer: str, output: Any) -> Tensor:
        """The features [B, D] in the output of the layer's module."""
        name, is_flat, tokens = _name(layer), layer.endswith(FLAT), self._tokens
        if layer == POOLED:
            return cast(Tensor, output)
        if name in TOKEN_LAYERS and tokens is not None:
            class_token, patches = output[:, 0], output[:, tokens.num_prefix :]
            if is_flat:
                return cast(Tensor, patches.flatten(1))
            chosen = {"class": [class_token], "patches": [patches.mean(1)]}
            return torch.cat(chosen.get(name, [class_token, patches.mean(1)]), 1)
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if isinstance(output, Tensor) and output.ndim == 4:
            maps = output.movedim(-1, 1) if _is_channels_last(self.backbone, name) else output
            return maps.flatten(1) if is_flat else maps.mean((2, 3))
        if isinstance(output, Tensor) and output.ndim == 3:
            of_images = output[:, tokens.num_prefix if tokens and not is_flat else 0 :]
            return of_images.flatten(1) if is_flat else of_images.mean(1)
        if isinstance(output, Tensor) and output.ndim == 2:
            return output
        raise ChoiceError(
            f"--layer {layer} returns {shape}; choose one that returns maps [B, C, H, W], tokens "
            "[B, N, C] or features [B, C]"
        )


def with_layers(network: nn.Module, layers: Sequence[str]) -> nn.Module:
    """The backbone of a prior at these layers in place of its own; raises ChoiceError as LayerFeatures."""
    backbone = network.backbone if isinstance(network, LayerFeatures) else network
    return LayerFeatures(backbone, *layers).eval()


def spatial_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """The last feature map: images [B, 3, H, W] → [B, C, h, w]; raises as `features_and_map`."""
    return features_and_map(backbone, images)[1]


def features_and_map(backbone: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, W] → the backbone's own features [B, D] and its last map [B, C, h, w], in one pass.

    A CNN's output before global pooling, or a vision transformer's patch tokens after its last
    normalisation, arranged as in the image. Raises ChoiceError for other models.
    """
    tokens = _find_tokens(backbone)
    module = _last_module(backbone, tokens)
    outputs = _outputs(backbone, {module}, images)
    return outputs[""], _as_map(backbone, tokens, module, outputs[module], images)


def map_width(backbone: nn.Module, image_size: int) -> int:
    """C of the last map of images of this size in pixels; raises ChoiceError as `features_and_map`."""
    with torch.no_grad():
        images = torch.zeros(1, 3, image_size, image_size)
        return features_and_map(copy.deepcopy(backbone).eval(), images)[1].shape[1]


def _last_module(backbone: nn.Module, tokens: "_Tokens | None") -> str:
    """The module whose output is the last map; that of timm's CNNs is a method."""
    if tokens is not None:
        return tokens.module
    for kind, module in _LAST_MAPS:
        if isinstance(backbone, kind):
            return module
    if _is_timm(backbone):
        return _FORWARD_FEATURES
    raise _no_map(backbone, "its output")


def _as_map(
    backbone: nn.Module, tokens: "_Tokens | None", module: str, output: Any, images: Tensor
) -> Tensor:
    """The output of a module as a map [B, C, h, w]; raises ChoiceError if it is none."""
    ndim = output.ndim if isinstance(output, Tensor) else 0
    if ndim == 3 and tokens is not None:
        patches = output[:, tokens.num_prefix :]
        height, width = (s // p for s, p in zip(images.shape[2:], tokens.patch_size, strict=True))
        if patches.shape[1] == height * width:
            return cast(Tensor, patches.transpose(1, 2).reshape(len(images), -1, height, width))
    if ndim == 4:
        is_last = _is_channels_last(backbone, "" if module == _FORWARD_FEATURES else module)
        return cast(Tensor, output.movedim(-1, 1) if is_last else output)
    raise _no_map(backbone, module)


def _no_map(backbone: nn.Module, module: str) -> ChoiceError:
    return ChoiceError(
        f"the feature map of {type(backbone).__name__} is unknown ({module}); use a ResNet, a vision "
        "transformer, or a CNN of timm"
    )


def _pooled_to(side: int, maps: Tensor, layer: str) -> Tensor:
    """Maps [B, C, h, w] → [B, side² · C], channels innermost."""
    height, width = maps.shape[2:]
    if min(height, width) < side:
        raise ChoiceError(
            f"--dense {side}: layer {layer.split(':')[0]} has {height}×{width} positions; use --dense "
            f"{min(height, width)}, a larger --image-size, or an earlier --layer"
        )
    pooled = nn.functional.adaptive_avg_pool2d(maps, side)
    return pooled.movedim(1, -1).flatten(1)


def _name(layer: str) -> str:
    """The layer without what is done with its output."""
    return _GRID.sub("", layer.removesuffix(FLAT))


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


def _outputs(backbone: nn.Module, modules: set[str], images: Tensor) -> dict[str, Any]:
    """The output of each of `modules` in one forward pass of `backbone`; that of "" is its own."""
    found: dict[str, Any] = {}
    is_hooked = {"", _FORWARD_FEATURES}.isdisjoint

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _arguments, output: found.update({name: output})

    hooks = [
        backbone.get_submodule(name).register_forward_hook(keep(name))
        for name in modules
        if is_hooked([name])
    ]
    try:
        if _FORWARD_FEATURES in modules:  # what timm's models do in `forward`
            model: Any = backbone
            found[_FORWARD_FEATURES] = model.forward_features(images)
            found[""] = model.forward_head(found[_FORWARD_FEATURES])
        else:
            found[""] = backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    if missing := sorted(modules - found.keys()):
        raise ChoiceError(f"--layer {missing[0]} is not part of the model's forward pass")
    return found
