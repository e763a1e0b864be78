"""Checkpoints of training libraries (rela.models.foreign_checkpoints), written here from a real model.

- every dialect gives features equal to the plain model's, and says in words where they were found;
- DINO's teacher, else the online network is chosen, never a momentum copy beside it;
- a Lightning checkpoint of a real Trainer, with hyperparameters, opens; our own runs' do too;
- anything but the whole backbone is refused by key: missing, misshapen, further layers, a mixture;
- hostile pickles and TorchScript are never executed.
"""

import argparse
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import timm
import torch
import torchvision.models as tv
from damages import RunsWhenUnpickled
from torch import Tensor, nn

from rela.errors import DataError, UnsafeError
from rela.methods.byol import BYOL
from rela.methods.method import MethodOptions
from rela.models.backbones import assemble_backbone, build_backbone
from rela.models.foreign_checkpoints import load_backbone_weights

State = dict[str, Tensor]
NAME = "shufflenet_v2_x0_5"


def state(seed: int = 1, name: str = NAME) -> State:
    return dict(build_backbone(name, 32, seed=seed).state_dict())


def under(prefix: str, tensors: State) -> State:
    return {prefix + key: value for key, value in tensors.items()}


def head(name: str) -> State:
    return {f"{name}.0.weight": torch.zeros(3, 3), f"{name}.0.bias": torch.zeros(3)}


def load_file(path: Path, name: str = NAME, **options: bool) -> tuple[nn.Module, str]:
    backbone, classifier = assemble_backbone(name, 32, seed=0)
    return backbone.eval(), load_backbone_weights(backbone, path, classifier, **options)


def load(tmp_path: Path, checkpoint: Any, name: str = NAME) -> tuple[nn.Module, str]:
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    return load_file(tmp_path / "checkpoint.pth", name)


def assert_online(backbone: nn.Module) -> None:
    assert all(torch.equal(v, ONLINE[k]) for k, v in backbone.state_dict().items())


ONLINE, OTHER = state(1), state(2)
RESNET = state(1, "resnet18_small")

CHECKPOINTS: dict[str, tuple[Any, str]] = {
    "torchvision": (
        {**ONLINE, "fc.weight": torch.zeros(9, 1024), "fc.bias": torch.zeros(9)},
        "state dict .. tensors, left out: fc.*",
    ),
    "DistributedDataParallel": (
        {"epoch": 3, "state_dict": under("module.", ONLINE), "optimize": {"state": {}}},
        "tensors under 'module.' of 'state_dict'",
    ),
    "timm's trainer": (
        {"state_dict": OTHER, "state_dict_ema": ONLINE, "args": argparse.Namespace(a=1), "epoch": 3},
        "of 'state_dict_ema'",
    ),
    "solo-learn": (
        {
            "pytorch-lightning_version": "1.7",
            "state_dict": {
                **under("momentum_backbone.", state(2, "resnet18_small")),
                **under("backbone.", RESNET), **head("projector"), **head("momentum_projector"),
                **head("classifier"),
            },
        },
        "solo-learn checkpoint, 120 tensors under 'backbone.' of 'state_dict', left out: "
        "momentum_backbone.*, projector.*, momentum_projector.*, classifier.*",
    ),
    "old solo-learn": (
        {"state_dict": {**under("encoder.", RESNET), **head("projector"), **head("classifier")}},
        "solo-learn checkpoint .. under 'encoder.'",
    ),
    "lightly": (
        {
            "pytorch-lightning_version": "2.6",
            "state_dict": {
                **under("backbone_momentum.", OTHER), **under("backbone.", ONLINE),
                **head("projection_head"), **head("prediction_head"),
            },
        },
        "Lightning checkpoint .. under 'backbone.' of 'state_dict', left out: backbone_momentum.*",
    ),
    "DINO": (
        {
            "student": {**under("module.backbone.", OTHER), **head("module.head")},
            "teacher": {**under("backbone.", ONLINE), **head("head")},
            "args": argparse.Namespace(arch=NAME, lr=1e-3),
        },
        "DINO checkpoint .. under 'backbone.' of 'teacher', left out: head.*",
    ),
    "DINOv2": (
        {"model": {
            **under("student.backbone.", OTHER), **under("teacher.backbone.", ONLINE),
            **head("teacher.dino_head"),
        }},
        "DINO checkpoint .. under 'teacher.backbone.' of 'model', left out: student.*, "
        "teacher.dino_head.*",
    ),
    "MoCo": (
        {
            "arch": NAME,
            "state_dict": {
                **under("module.encoder_q.", ONLINE),
                **head("module.encoder_q.fc"),
                **under("module.encoder_k.", OTHER),
                "module.queue": torch.zeros(2, 2),
            },
        },
        "MoCo checkpoint .. under 'module.encoder_q.' of 'state_dict', left out: "
        "module.encoder_q.fc.*, module.encoder_k.*, module.queue",
    ),
    "MoCo v3": (
        {"state_dict": {
            **under("module.base_encoder.", ONLINE), **under("module.momentum_encoder.", OTHER),
            **head("module.predictor"),
        }},
        "MoCo checkpoint .. under 'module.base_encoder.'",
    ),
    "SwAV": (
        {
            **under("module.", ONLINE), **head("module.projection_head"),
            "module.prototypes.weight": torch.zeros(3, 3),
        },
        "tensors under 'module.', left out: module.projection_head.*, module.prototypes.*",
    ),
    "VICReg": (
        {"model": {**under("module.backbone.", ONLINE), **head("module.projector")}},
        "under 'module.backbone.' of 'model', left out: module.projector.*",
    ),
    "VISSL": (
        {
            "classy_state_dict": {"base_model": {"model": {
                "trunk": under("_feature_blocks.", ONLINE), "heads": head("0")
            }}}
        },
        "VISSL checkpoint .. under '_feature_blocks.' of 'classy_state_dict.base_model.model.trunk'",
    ),
    "VISSL's trunk": (
        under("trunk._feature_blocks.", ONLINE),
        "VISSL checkpoint .. under 'trunk._feature_blocks.'",
    ),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("dialect", CHECKPOINTS)
def test_every_dialect_gives_the_plain_models_features(tmp_path: Path, dialect: str):
    checkpoint, said = CHECKPOINTS[dialect]
    name = "resnet18_small" if "solo-learn" in dialect else NAME
    loaded, note = load(tmp_path, checkpoint, name)
    plain = build_backbone(name, 32, seed=1).eval()
    batch = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(batch), plain(batch))
    assert all(part in note for part in said.split(" .. ")), note


@torch.no_grad()
def test_torchvisions_children_in_a_sequence(tmp_path: Path):
    """`nn.Sequential(*list(resnet.children())[:-1])`, as in lightly's tutorials."""
    resnet = tv.resnet18().eval()
    module = nn.Module()
    module.backbone = nn.Sequential(*list(resnet.children())[:-1])
    loaded, note = load(tmp_path, {"state_dict": module.state_dict()}, "resnet18")
    batch = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded(batch), module.backbone(batch).flatten(1))
    assert "under 'backbone.'" in note


@torch.no_grad()
def test_vision_transformers_of_dino_and_mae(tmp_path: Path):
    vit = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    batch = torch.randn(2, 3, 32, 32)
    tensors = vit.state_dict()
    mae = {
        **tensors,
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_pos_embed": torch.zeros(1, 5, 8),
        "decoder_blocks.0.norm1.weight": torch.zeros(8),
    }
    dino = {"teacher": {**under("backbone.", tensors), **head("head.mlp")}}
    for checkpoint in ({"model": mae}, dino):
        loaded, _ = load(tmp_path, checkpoint, "timm:test_vit")
        torch.testing.assert_close(loaded(batch), vit(batch))


class Module(pl.LightningModule):
    def __init__(self, lr: float, args: argparse.Namespace) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = build_backbone(NAME, 32, seed=1)
        self.projection_head = nn.Linear(1024, 8)

    def training_step(self, batch: Tensor) -> Tensor:
        return self.projection_head(self.backbone(batch)).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


def write_checkpoint(module: pl.LightningModule, path: Path) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, max_steps=1, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=path.parent,
    )  # fmt: skip
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)


def test_a_lightning_checkpoint_of_a_real_trainer(tmp_path: Path):
    module = Module(0.1, argparse.Namespace(batch_size=3, widths=[1, 2]))
    write_checkpoint(module, tmp_path / "last.ckpt")
    assert "hyper_parameters" in torch.load(tmp_path / "last.ckpt", weights_only=False)
    backbone, note = load_file(tmp_path / "last.ckpt")
    assert note.startswith("weights: Lightning checkpoint")
    assert_online(backbone)


def test_a_checkpoint_of_our_own_training(tmp_path: Path):
    method = BYOL(build_backbone(NAME, 32, seed=1), MethodOptions(1024, 32))
    with torch.no_grad():
        for parameter in method.momentum_backbone.parameters():
            parameter.zero_()
    module = pl.LightningModule()
    module.method = method
    write_checkpoint(module, tmp_path / "last.ckpt")
    backbone, note = load_file(tmp_path / "last.ckpt")
    assert "rela checkpoint" in note and "'method.backbone.'" in note
    assert_online(backbone)


# Refusals


def without(tensors: State, key: str) -> State:
    return {k: v for k, v in tensors.items() if k != key}


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (under("backbone.", without(ONLINE, "conv5.0.weight")), "missing: conv5.0.weight"),
        (under("backbone.", {**ONLINE, "conv1.0.weight": torch.zeros(24, 3, 7, 7)}),
         "misshapen: conv1.0.weight"),
        (under("backbone.", {**ONLINE, "stage4.4.branch1.0.weight": torch.zeros(1)}),
         "unexpected: backbone.stage4.4.branch1.0.weight"),
        ({**ONLINE, "register_tokens": torch.zeros(1)}, "unexpected: register_tokens"),
        ({**under("a.", without(ONLINE, "conv5.0.weight")),
          "b.conv5.0.weight": ONLINE["conv5.0.weight"]}, "missing: conv5.0.weight"),
        ({"a": ONLINE, "b": OTHER}, "holds 2 different backbones, at 'a', 'b'"),
        ({"state_dict": head("projector")}, "no tensor that the architecture has"),
        ({"state_dict": {"epoch": 3}}, "expected a state dict"),
        ([ONLINE], "expected a state dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_anything_but_the_whole_backbone_is_refused(tmp_path: Path, checkpoint: Any, message: str):
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    backbone, classifier = assemble_backbone(NAME, 32, seed=0)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(DataError) as caught:
        load_backbone_weights(backbone, tmp_path / "checkpoint.pth", classifier)
    assert message in str(caught.value) and "checkpoint.pth" in str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


def test_a_larger_model_of_the_same_family_is_refused(tmp_path: Path):
    checkpoint = {"state_dict": under("backbone.", dict(tv.resnet34().state_dict()))}
    with pytest.raises(DataError, match=r"unexpected: backbone\.layer1\.2\.conv1\.weight"):
        load(tmp_path, checkpoint, "resnet18")


def test_equal_backbones_count_as_one(tmp_path: Path):
    loaded, _ = load(tmp_path, {"a": ONLINE, "b": {k: v.clone() for k, v in ONLINE.items()}})
    assert_online(loaded)


def test_a_momentum_copy_is_used_if_it_is_the_only_backbone(tmp_path: Path):
    loaded, note = load(tmp_path, under("momentum_backbone.", ONLINE))
    assert "momentum_backbone" in note
    assert_online(loaded)


# Never executed


@pytest.mark.parametrize(
    "hide",
    [
        lambda bomb: {"state_dict": ONLINE, "hyper_parameters": bomb},
        lambda bomb: {"state_dict": ONLINE, "args": argparse.Namespace(bomb=bomb)},
        lambda bomb: {"teacher": {**ONLINE, "bomb": bomb}},
    ],
)
def test_a_hostile_checkpoint_is_not_executed(tmp_path: Path, hide: Any):
    words = r"checkpoint\.pth is not a file of torch.save, or holds more"
    with pytest.raises(DataError, match=words):
        load(tmp_path, hide(RunsWhenUnpickled(tmp_path / "executed")))
    assert not (tmp_path / "executed").exists()


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torchscript_is_opened_only_if_its_code_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = build_backbone(NAME, 32, seed=1).eval()
    path = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.trace(plain, torch.zeros(1, 3, 32, 32)), path)
    backbone, _ = load_file(path, trust_code=True)
    assert_online(backbone)

    opened: list[object] = []
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: opened.append(a))
    monkeypatch.setattr(torch, "load", lambda *a, **k: opened.append(a))
    with pytest.raises(UnsafeError, match="--trust-code") as caught:
        load_file(path)
    assert caught.value.exit_status == 77
    assert not opened
