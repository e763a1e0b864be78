"""Files as they are published, under the names of their publishers, against the libraries' own loading.

Small variants of the architectures are made by timm, torchvision and open_clip with random weights and
renamed to published names.

- each gives the features of the model that it was made from;
- at another image size position embeddings are those that the library itself interpolates;
- wrappers anywhere in a name; of several encoders one is chosen, others are named, an option decides;
- refusals name the keys of the file beside those of the architecture.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import torchvision.models as tv
from published_names import (
    Rename,
    State,
    beit,
    convnext,
    deit3,
    dinov2,
    dinov2_registers,
    dinov2_training,
    dinov3,
    efficientnet_pytorch,
    ijepa,
    mae,
    miil,
    mocov3,
    renamed,
    swin,
    tresnet,
    under,
)
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from rela.errors import DataError
from rela.models.backbones import remove_classifier
from rela.models.foreign_checkpoints import find_encoder, load_backbone_weights
from rela.models.timm_models import timm_classifier_keys
from rela.priors import PriorRequest, resolve

VIT = {"embed_dim": 32, "depth": 3, "num_heads": 2}


def randomized(model: nn.Module) -> nn.Module:
    """In eval mode, with other values than zeros and ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(
                    0.5 + noise if "var" in name or name.endswith("bn.weight") else noise - 0.3
                )
    return model.eval()


def file_of(tmp_path: Path, checkpoint: Any) -> Path:
    torch.save(checkpoint, tmp_path / "published.pth")
    return tmp_path / "published.pth"


def load(backbone: nn.Module, path: Path, which: str | None = None) -> str:
    return load_backbone_weights(backbone, path, timm_classifier_keys(backbone), which=which)


SWIN = {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 1, 1, 1)}
# name of the variant: (architecture, arguments that make it small, sizes, names)
PUBLISHED: dict[str, tuple[str, dict[str, Any], tuple[int, ...], Rename]] = {
    "DINO": ("vit_small_patch16_224.dino", VIT, (64, 96), dict),
    "DINOv2": ("vit_small_patch14_dinov2", VIT, (70, 56), dinov2),
    "DINOv2, registers": ("vit_small_patch14_reg4_dinov2", VIT, (70, 56), dinov2_registers),
    "DINOv2, training": ("vit_small_patch14_dinov2", VIT, (70, 56), dinov2_training),
    "DINOv3": ("vit_small_patch16_dinov3", VIT, (64, 96), dinov3),
    "MAE": ("vit_base_patch16_224.mae", VIT, (64, 96), mae),
    "MoCo v3": ("vit_small_patch16_224", VIT, (64, 96), mocov3),
    "I-JEPA": ("vit_huge_patch14_gap_224.in1k_ijepa", VIT, (70, 56), ijepa),
    "BEiT": ("beit_base_patch16_224", VIT, (64, 96), beit),
    "DeiT III": ("deit3_small_patch16_224", VIT, (64, 96), deit3),
    "MIIL, ViT": ("vit_base_patch16_224_miil", VIT, (64, 96), miil),
    "MIIL, TResNet": ("tresnet_m", {"layers": [1, 1, 1, 1]}, (64,), tresnet),
    "Swin": ("swin_tiny_patch4_window7_224", SWIN, (224, 448), swin),
    "ConvNeXt": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, (64,), convnext),
    "EfficientNet-Lite": ("tf_efficientnet_lite0", {}, (64,), efficientnet_pytorch),
    "EfficientNet": ("tf_efficientnet_b0", {}, (64,), efficientnet_pytorch),
}  # fmt: skip


def small(arch: str, size: int, arguments: dict[str, Any], **options: Any) -> nn.Module:
    sized = {} if arch.startswith(("tresnet", "convnext", "tf_")) else {"img_size": size}
    return timm.create_model(arch, num_classes=0, **sized, **arguments, **options)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_gives_the_models_features(tmp_path: Path, name: str):
    arch, arguments, sizes, rename = PUBLISHED[name]
    model = randomized(small(arch, sizes[0], arguments))
    path = file_of(tmp_path, rename(model.state_dict()))
    for size in sizes:
        backbone = small(arch, size, arguments).eval()
        note = load(backbone, path)
        expected = model
        if size != sizes[0]:  # timm's own loading, with its names
            state = {"pretrained_cfg_overlay": {"state_dict": dict(model.state_dict())}}
            expected = small(arch, size, arguments, pretrained=True, **state).eval()
            has_positions = any(
                re.search("pos_embed|bias_table", key) for key in model.state_dict()
            )
            assert ("interpolated from" in note) == (has_positions and name != "Swin")
        images = torch.randn(1, 3, size, size)
        torch.testing.assert_close(backbone(images), expected(images), rtol=1e-4, atol=1e-4)


def test_what_published_files_are_called(tmp_path: Path):
    """The notes say which of several encoders it was."""
    for name, taken, left in (
        ("MoCo v3", "MoCo checkpoint", "not taken: state_dict.module.momentum_encoder"),
        ("DINOv2, training", "'teacher.backbone.' of 'model'", "not taken: model.student.backbone"),
        ("I-JEPA", "of 'target_encoder'", "not taken: encoder.module"),
    ):
        arch, arguments, sizes, rename = PUBLISHED[name]
        model = small(arch, sizes[0], arguments)
        note = load(small(arch, sizes[0], arguments), file_of(tmp_path, rename(model.state_dict())))
        assert taken in note and left in note, note


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("MoCo v3", "momentum_encoder"),
        ("I-JEPA", "encoder"),
        ("DINOv2, training", "student"),
    ],
)
def test_the_other_encoder_of_a_published_file_is_taken_if_asked_for(
    tmp_path: Path, name: str, which: str
):
    """Each tensor of it is larger by one."""
    arch, arguments, sizes, rename = PUBLISHED[name]
    model, backbone = (small(arch, sizes[0], arguments) for _ in range(2))
    load(backbone, file_of(tmp_path, rename(randomized(model).state_dict())), which)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(backbone.state_dict()[key], value + 1)


@torch.no_grad()
def test_an_openclip_file_as_clip_and_as_timm(tmp_path: Path):
    vision = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 1}
    model = randomized(open_clip.model.CLIP(16, vision, text))
    path = file_of(tmp_path, {"epoch": 3, "state_dict": under("module.", model.state_dict())})
    tower = open_clip.model.CLIP(16, vision, text).visual.eval()
    assert "token_embedding" in load_backbone_weights(tower, path, [])
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(tower(images), model.encode_image(images))
    larger = open_clip.model.CLIP(16, {**vision, "image_size": 96}, text).eval()
    assert "interpolated" in load_backbone_weights(larger.visual, path, [])
    again, state = open_clip.model.CLIP(16, {**vision, "image_size": 96}, text), model.state_dict()
    open_clip.model.resize_pos_embed(state, again)
    again.load_state_dict(state)
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(larger.visual(images), again.eval().encode_image(images))


@torch.no_grad()
def test_a_torchvision_transformer_at_another_size(tmp_path: Path):
    def vit(size: int) -> VisionTransformer:
        return VisionTransformer(size, 16, num_layers=1, num_heads=2, hidden_dim=32, mlp_dim=32)

    model, backbone, expected = randomized(vit(64)), vit(96).eval(), vit(96).eval()
    classifier = remove_classifier(backbone)
    path = file_of(tmp_path, model.state_dict())
    assert "interpolated" in load_backbone_weights(backbone, path, classifier)
    expected.load_state_dict(interpolate_embeddings(96, 16, dict(model.state_dict())))
    remove_classifier(expected)
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(backbone(images), expected(images))


# Wrappers and several encoders


def resnet(seed: int = 1) -> State:
    torch.manual_seed(seed)
    return dict(timm.create_model("test_resnet", num_classes=0).state_dict())


def wrapped(state: State, wrapper: str) -> State:
    return renamed(state, (r"^(layer\d)\.(\d)\.", rf"\1.{wrapper}.\2.{wrapper}."))


ONLINE, OTHER = resnet(1), resnet(2)
SWA = {"n_averaged": torch.tensor(5), **under("module.", ONLINE)}


@pytest.mark.parametrize(
    "checkpoint",
    [
        wrapped(ONLINE, "_orig_mod"),
        under("_fsdp_wrapped_module.", wrapped(ONLINE, "_fsdp_wrapped_module._checkpoint_wrapped_module")),
        {"state_dict": under("module.encoder_q.", wrapped(ONLINE, "module"))},
        {"state_dict": under("_forward_module.model._orig_mod.", ONLINE)},
        SWA,
        {"n_averaged": torch.tensor(5), **under("module._orig_mod.", wrapped(ONLINE, "module"))},
        wrapped(ONLINE, "_checkpoint_wrapped_module"),
        renamed(ONLINE, (r"^(layer\d\.\d\.conv\d)\.", r"\1._checkpoint_wrapped_module.")),
        {"initted": torch.tensor(True), **under("online_model.", OTHER), **under("ema_model.", ONLINE)},
        {"model": OTHER, "model_ema": under("module.", ONLINE)},
        {"state_dict": OTHER, "swa_model": SWA},
    ],
    ids=["compiled", "FSDP", "DataParallel", "Lightning", "SWA", "SWA of compiled", "checkpointed blocks",
         "checkpointed layers", "EMA", "timm's EMA", "both"],
)  # fmt: skip
def test_wrappers_and_averages_are_understood(tmp_path: Path, checkpoint: Any):
    backbone = timm.create_model("test_resnet", num_classes=0)
    load(backbone, file_of(tmp_path, checkpoint))
    assert all(torch.equal(v, ONLINE[k]) for k, v in backbone.state_dict().items())


@pytest.mark.parametrize("which", ["student", "student.backbone", "teacher", None])
def test_an_option_chooses_the_encoder(tmp_path: Path, which: str | None):
    both = {"student": under("module.backbone.", OTHER), "teacher": under("backbone.", ONLINE)}
    which = "student.module.backbone" if which == "student.backbone" else which
    backbone = timm.create_model("test_resnet", num_classes=0)
    note = load(backbone, file_of(tmp_path, both), which)
    asked = which is not None and which.startswith("student")
    chosen, other = (OTHER, "teacher.backbone") if asked else (ONLINE, "student.module.backbone")
    assert all(torch.equal(v, chosen[k]) for k, v in backbone.state_dict().items())
    assert f"not taken: {other}" in note


def test_an_encoder_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path):
    backbone = timm.create_model("test_resnet", num_classes=0)
    path = file_of(tmp_path, {"student": OTHER, "teacher": ONLINE})
    with pytest.raises(DataError, match=r"'momentum'.*--encoder: 'teacher', 'student'"):
        load(backbone, path, "momentum")
    with pytest.raises(DataError, match=r"choose one with --encoder a$"):
        load(backbone, file_of(tmp_path, {"a": OTHER, "b": ONLINE}))
    with pytest.raises(DataError, match="remove --encoder"):
        load(backbone, file_of(tmp_path, ONLINE), "student")


# Refusals


def test_a_refusal_names_the_keys_of_both(tmp_path: Path):
    path = file_of(
        tmp_path, efficientnet_pytorch(small("tf_efficientnet_lite0", 64, {}).state_dict())
    )
    for arch in ("test_resnet", "tf_efficientnet_lite1"):
        backbone = timm.create_model(arch, num_classes=0)
        with pytest.raises(DataError) as caught:
            load(backbone, path)
        own = "conv1.0.weight" if arch == "test_resnet" else "missing: blocks.5.1.conv_pw.weight"
        assert "_conv_stem.weight" in str(caught.value) and own in str(caught.value)
        assert "\n" not in str(caught.value)


def test_names_in_a_hostile_file_are_printable(tmp_path: Path):
    path = file_of(tmp_path, {"a\x1b[2Jb\n.weight": torch.zeros(2)})
    with pytest.raises(DataError) as caught:
        load(timm.create_model("test_resnet", num_classes=0), path)
    assert str(caught.value).isprintable() and "x1b" in str(caught.value)


def test_position_embeddings_that_only_claim_to_be_large_are_not_written_out(tmp_path: Path):
    backbone = small("vit_small_patch16_224", 64, VIT)
    state = dict(backbone.state_dict())
    state["pos_embed"] = torch.zeros(1).expand(1, 10**10 + 1, 32)  # 1.3 TB in four bytes
    path = file_of(tmp_path, state)
    with pytest.raises(DataError, match="misshapen: pos_embed"):
        load(backbone, path)


# Real files, where package registries have them

REAL = {
    "efficientnet-lite0-57934424.pth": "timm:tf_efficientnet_lite0",
    "efficientnet-lite1-77cc7160.pth": "timm:tf_efficientnet_lite1",
    "efficientnet-lite2-9656183e.pth": "timm:tf_efficientnet_lite2",
    "mobilenet_v2-b0353104.pth": "mobilenet_v2",
}


def real_files() -> Iterator[Any]:
    folder = Path(os.environ.get("RELA_REAL_WEIGHTS", "nowhere"))
    for file, arch in REAL.items():
        [path] = list(folder.rglob(file)) or [None]
        reason = f"no {file}: unpack its package and name the folder in RELA_REAL_WEIGHTS"
        yield pytest.param(
            path, arch, id=arch, marks=pytest.mark.skipif(path is None, reason=reason)
        )


@pytest.mark.parametrize(("path", "arch"), list(real_files()))
def test_real_files_load_with_their_preprocessing(path: Path, arch: str):
    seen = resolve(PriorRequest(f"file:{path}", arch=arch)).identity.preprocessing
    if arch == "mobilenet_v2":  # V1, not the default
        preset = tv.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
        assert (seen.resize, seen.crop) == (preset.resize_size[0], preset.crop_size[0])
        return
    config = timm.data.resolve_data_config(
        timm.get_pretrained_cfg(arch.removeprefix("timm:")).to_dict()
    )
    assert (seen.crop, seen.mean, seen.std) == (
        config["input_size"][1],
        config["mean"],
        config["std"],
    )
    assert seen.interpolation == config["interpolation"]


def test_the_file_tells_the_size_it_was_trained_at(tmp_path: Path):
    arch = "vit_small_patch14_reg4_dinov2"
    backbone = small(arch, 70, VIT)
    for size in (56, 70, 224):
        path = file_of(tmp_path, dinov2_registers(small(arch, size, VIT).state_dict()))
        assert find_encoder(backbone, path, []).trained_image_size(backbone, 70) == size
    path = file_of(tmp_path, ONLINE)
    convolutional = timm.create_model("test_resnet", num_classes=0)
    assert find_encoder(convolutional, path, []).trained_image_size(convolutional, 70) is None
