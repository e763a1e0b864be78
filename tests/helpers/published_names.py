"""timm's names of tensors → those of the publishers, as their files have them."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
Rename = Callable[[State], Any]


def under(prefix: str, tensors: State) -> State:
    return {prefix + key: value for key, value in tensors.items()}


def renamed(tensors: State, *rules: tuple[str, str]) -> State:
    names = {key: key for key in tensors}
    for pattern, by in rules:
        names = {key: re.sub(pattern, by, name) for key, name in names.items()}
    return {names[key]: value for key, value in tensors.items()}


def dinov2(state: State) -> State:
    return {**state, "mask_token": torch.zeros(1, 32)}


def dinov2_registers(state: State) -> State:
    """Position embeddings have a row for the class token, which timm adds to it."""
    state, of_class = dict(state), torch.rand(1, 1, 32)
    state["register_tokens"] = state.pop("reg_token")
    state["cls_token"] = state["cls_token"] - of_class
    state["pos_embed"] = torch.cat([of_class, state["pos_embed"]], 1)
    return dinov2(state)


def dinov2_training(state: State) -> Any:
    """Teacher and student of FSDP, in two chunks of blocks."""
    chunked = renamed(
        state, (r"^blocks\.([01])\.", r"blocks.0.\1."), (r"^blocks\.2\.", "blocks.1.2.")
    )
    other = {key: value + 1 for key, value in chunked.items()}
    head = {"teacher.dino_head.mlp.0.weight": torch.zeros(2, 2)}
    both = {**under("student.backbone.", other), **under("teacher.backbone.", chunked), **head}
    return {"model": both, "iteration": 3}


def dinov3(state: State) -> State:
    state = renamed(state, ("reg_token", "storage_tokens"), (r"gamma_(\d)", r"ls\1.gamma"))
    return {**state, "mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.zeros(4)}


def mae(state: State) -> Any:
    extra = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 5, 8)}
    return {"model": {**state, **extra, "decoder_blocks.0.norm1.weight": torch.zeros(8)}}


def mocov3(state: State) -> Any:
    other = {key: value + 1 for key, value in state.items()}
    return {
        "arch": "vit_small",
        "state_dict": {
            **under("module.base_encoder.", {**state, "head.0.weight": torch.zeros(2, 2)}),
            **under("module.momentum_encoder.", other),
            "module.predictor.0.weight": torch.zeros(2, 2),
        },
    }


def ijepa(state: State) -> Any:
    other = {key: value + 1 for key, value in state.items()}
    return {
        "encoder": under("module.", other),
        "predictor": {"module.mask_token": torch.zeros(1, 1, 8)},
        "target_encoder": under("module.", state),
        "opt": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"params": [0]}]},
        "scaler": {"scale": 65536.0},
        "epoch": 300,
    }


def beit(state: State) -> Any:
    return {"model": {**state, "blocks.0.attn.relative_position_index": torch.zeros(2, 2).long()}}


def swin(state: State) -> Any:
    moved = {
        re.sub(
            r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key
        ): value
        for key, value in state.items()
    }
    buffers = {"layers.0.blocks.1.attn_mask": torch.zeros(1, 49, 49)}
    head = {"head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10)}
    return {"model": {**moved, **buffers, **head}}


def convnext(state: State) -> Any:
    rules = (
        (r"stem\.", "downsample_layers.0."),
        (r"stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"stages\.(\d)\.blocks\.", r"stages.\1."),
        (r"conv_dw", "dwconv"),
        (r"mlp\.fc", "pwconv"),
        (r"head\.norm\.", "norm."),
    )
    return {"model": {**renamed(state, *rules), "head.weight": torch.zeros(3, 32)}}


def deit3(state: State) -> Any:
    return {"model": renamed(state, (r"ls(\d)\.gamma", r"gamma_\1"))}


def miil(state: State) -> Any:
    """ImageNet-21K's 10,450 classes, here fewer, beside the settings of the training."""
    head = {"head.weight": torch.zeros(45, 32), "head.bias": torch.zeros(45)}
    return {"num_classes": 45, "state_dict": {**state, **head}}


def tresnet(state: State) -> Any:
    """MIIL's: classes of layers differ, and InplaceABN takes absolute values."""
    state = {k: v - 1e-5 if k.endswith("bn.weight") else v for k, v in state.items()}
    rules = (
        (r"(conv\d)\.conv\.", r"\1.0."),
        (r"(conv\d)\.bn\.", r"\1.1."),
        (r"downsample\.(\d)\.conv", r"downsample.\1.0"),
        (r"downsample\.(\d)\.bn", r"downsample.\1.1"),
    )
    return {"state_dict": renamed(state, *rules)}


def efficientnet_pytorch(state: State) -> State:
    """Its names in its order, which is timm's."""
    names, norm = [], ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def add(prefix: str, parts: tuple[str, ...], kinds: tuple[str, ...] = ("weight",)) -> None:
        names.extend(f"{prefix}{part}.{kind}" for part in parts for kind in kinds)

    def layer(prefix: str, convolution: str, bn: str) -> None:
        add(prefix, (convolution,))
        add(prefix, (bn,), norm)

    squeezes = any("se.conv_reduce" in key for key in state)
    layer("", "_conv_stem", "_bn0")
    for block in range(len({key.split(".conv_dw")[0] for key in state if ".conv_dw." in key})):
        prefix = f"_blocks.{block}."
        if block:
            layer(prefix, "_expand_conv", "_bn0")
        layer(prefix, "_depthwise_conv", "_bn1")
        if squeezes:
            add(prefix, ("_se_reduce", "_se_expand"), ("weight", "bias"))
        layer(prefix, "_project_conv", "_bn2")
    layer("", "_conv_head", "_bn1")
    add("", ("_fc",), ("weight", "bias"))
    values = [*state.values(), torch.zeros(1000, 1280), torch.zeros(1000)]
    return dict(zip(names, values, strict=True))
