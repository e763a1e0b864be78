"""Training steps without loading: one batch of random images, again and again, through the Trainer."""

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchvision.transforms.functional import normalize

from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD
from rela.training.handover import FixedHandOver
from rela.training.precision import default_precision
from rela.training.run import build_method, build_module
from rela.training.settings import ResolvedSettings
from rela.training.two_stage import TwoStage

NUM_CLASSES = 10
WARMUP_STEPS = 1
_NEVER = 10**9  # steps


class RepeatedBatch:
    """As much of a ViewLoader as a Trainer and a TwoStage ask for; nothing to load."""

    accumulate = 1

    def __init__(self, batch: Any, num_batches: int) -> None:
        self.batch, self.num_batches = batch, num_batches

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.num_batches):
            yield self.batch

    def set_rank(self, rank: int, world_size: int) -> None:
        """One process."""


class _StepClock(pl.Callback):  # type: ignore[misc]
    """When the first step after the warm-up began, and when the last one was over."""

    def __init__(self) -> None:
        self.begin = self.end = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == WARMUP_STEPS:
            self.begin = _now()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.end = _now()


def byol_plan(model: str, image_size: int, batch_size: int) -> ResolvedSettings:
    """BYOL as in ReLA's reference: AdamW at 1e-3, decay 0.01, momentum 0.99."""
    return ResolvedSettings(
        hyperparameters="reference", optimizer="adamw", lr=1e-3, weight_decay=0.01, schedule="constant",
        warmup_epochs=0, model=model, image_size=image_size, epochs=1, batch_size=batch_size, devices="1",
    )  # fmt: skip


def random_batch(plan: ResolvedSettings, device: str = "cpu") -> dict[str, Any]:
    """What a ViewLoader gives, already on `device`: two uint8 views and labels."""
    size = plan.image_size
    generator = torch.Generator().manual_seed(0)
    shape = (2, plan.batch_size, size, size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    labels = torch.arange(plan.batch_size, device=device) % NUM_CLASSES
    return {"views": list(pixels.permute(0, 1, 4, 2, 3)), "label": labels, "index": labels}


def two_stage(plan: ResolvedSettings, stage: int, target_width: int = 0) -> TwoStage:
    """Our training module, in stage 1 for ever or in stage 2 from the start."""
    method = build_method(plan, plan.batch_size, NUM_CLASSES)
    handover = FixedHandOver(_NEVER) if stage == 1 else None
    no_loader: Any = RepeatedBatch(None, 1)
    return build_module(plan, method, no_loader, 1, handover, target_width)


def images_per_second(
    module: pl.LightningModule,
    loader: Any,
    batch_size: int,
    callbacks: Sequence[pl.Callback] = (),
    precision: str = "auto",
) -> float:
    """Rate of an epoch after its first steps, on a GPU if there is one."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    clock = _StepClock()
    pl.Trainer(
        max_epochs=1, devices=1, precision=default_precision(precision), callbacks=[clock, *callbacks],
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    ).fit(module, loader)  # fmt: skip
    return (len(loader) - WARMUP_STEPS) * batch_size / (clock.end - clock.begin)


def our_rate(
    plan: ResolvedSettings, stage: int, batch: dict[str, Any], num_steps: int, target_width: int = 0,
    callbacks: Sequence[pl.Callback] = (), precision: str = "auto",
) -> float:  # fmt: skip
    """Images per second of our training module on this batch, again and again."""
    module, repeated = two_stage(plan, stage, target_width), RepeatedBatch(batch, num_steps)
    return images_per_second(module, repeated, plan.batch_size, callbacks, precision)


def normalized(views: list[Tensor]) -> list[Tensor]:
    """float32 [B, 3, S, S] as torchvision's transforms and the DataLoader give them."""
    return [
        normalize(view.contiguous().float() / 255, list(NORMALIZE_MEAN), list(NORMALIZE_STD))
        for view in views
    ]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
