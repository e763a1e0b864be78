"""Our BYOL step against the plain module: the same mathematics as lightly's tutorial writes it."""

import copy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.speed.comparison import Comparison, compare
from benchmarks.speed.own_process import in_own_processes
from benchmarks.speed.training_steps import (
    NUM_CLASSES,
    RepeatedBatch,
    byol_plan,
    images_per_second,
    normalized,
    our_rate,
    random_batch,
)
from rela.data.memory import keep_freed_memory
from rela.models.backbones import build_backbone, feature_dim

# model, image size, batch size: the usual stem, and the one for small images
_SETTINGS = (("resnet18", 64, 64), ("resnet18_small", 32, 32))
_NUM_STEPS = 3  # the first one only warms up


class PlainBYOL(pl.LightningModule):  # type: ignore[misc]
    """BYOL with the reference's settings: momentum 0.99, AdamW as PyTorch has it, a linear classifier.

    A batch is ((view 0, view 1), labels), float32 [B, 3, S, S] each, int64 [B].
    """

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = BYOLProjectionHead(width, 2 * width, 256)
        self.predictor = BYOLPredictionHead(256, 2 * width, 256)
        self.momentum_backbone = copy.deepcopy(self.backbone)
        self.momentum_projector = copy.deepcopy(self.projector)
        deactivate_requires_grad(self.momentum_backbone)
        deactivate_requires_grad(self.momentum_projector)
        self.classifier = nn.Linear(width, NUM_CLASSES)
        self.criterion = NegativeCosineSimilarity()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        update_momentum(self.backbone, self.momentum_backbone, m=0.99)
        update_momentum(self.projector, self.momentum_projector, m=0.99)
        (view0, view1), labels = batch
        features0, features1 = self.backbone(view0), self.backbone(view1)
        prediction0 = self.predictor(self.projector(features0))
        prediction1 = self.predictor(self.projector(features1))
        with torch.no_grad():
            target0 = self.momentum_projector(self.momentum_backbone(view0))
            target1 = self.momentum_projector(self.momentum_backbone(view1))
        loss = 0.5 * (self.criterion(prediction0, target1) + self.criterion(prediction1, target0))
        monitor = cross_entropy(self.classifier(features1.detach()), labels)
        return {"loss": loss + monitor, "objective": loss.detach()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.01)


def run(rounds: int, scratch: Path) -> list[Comparison]:
    return [_compared(*setting, rounds) for setting in _SETTINGS]


def _compared(model: str, image_size: int, batch_size: int, rounds: int) -> Comparison:
    measures = {"ours": ours, "plain module": plain}
    title = f"stage-2 BYOL step, {model} at {image_size} px, batches of {batch_size}"
    with in_own_processes(measures, model, image_size, batch_size) as sides:
        return compare(title, "img/s", sides, rounds, {"plain module": 1.1})


def ours(model: str, image_size: int, batch_size: int) -> float:
    """Images per second of the training module, from uint8 views."""
    keep_freed_memory()
    plan = byol_plan(model, image_size, batch_size)
    return our_rate(plan, 2, random_batch(plan), _NUM_STEPS)


def plain(model: str, image_size: int, batch_size: int) -> float:
    """Images per second of the plain module, from float32 views that were normalised before."""
    batch = random_batch(byol_plan(model, image_size, batch_size))
    backbone = build_backbone(model, image_size, seed=0)
    module = PlainBYOL(backbone, feature_dim(backbone, image_size))
    loader = RepeatedBatch((normalized(batch["views"]), batch["label"]), _NUM_STEPS)
    return images_per_second(module, loader, batch_size)
