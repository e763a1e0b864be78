"""Stage 1 on cached targets, against online distillation: the same step with the prior in it."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from benchmarks.speed.comparison import Comparison, Figure, compare
from benchmarks.speed.training_steps import byol_plan, our_rate, random_batch
from rela.data.memory import keep_freed_memory
from rela.models.backbones import build_backbone
from rela.representations.matrix_file import ROWS_PER_PART, write_matrix
from rela.representations.targets import Targets, open_targets
from rela.training.precision import has_bf16

_MODEL, _IMAGE_SIZE, _BATCH_SIZE, _WIDTH = "resnet18", 64, 64, 512
_NUM_STEPS = 8
_NUM_TARGETS, _NUM_FETCHES = 100_000, 200


class OnlinePrior(pl.Callback):  # type: ignore[misc]
    """Computes the targets of every batch from its views, as distillation without a cache does.

    The prior runs without gradients, in eval mode and in the memory layout that suits it; what it saw
    is not projected, which would cost a little more.
    """

    def __init__(self, prior: nn.Module) -> None:
        self.prior = prior.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        views = [pl_module.normalize(view) for view in batch["views"]]
        batch["targets"] = [
            self.prior(view.contiguous(memory_format=torch.channels_last)) for view in views
        ]


def run(rounds: int, scratch: Path) -> list[Comparison | Figure]:
    keep_freed_memory()  # as training does, for both sides
    plan = byol_plan(_MODEL, _IMAGE_SIZE, _BATCH_SIZE)
    batch = random_batch(plan)
    at_hand = {**batch, "targets": [torch.randn(_BATCH_SIZE, _WIDTH).half()] * 2}

    def online() -> float:
        prior = OnlinePrior(build_backbone(_MODEL, _IMAGE_SIZE, seed=1))
        return our_rate(plan, 1, dict(batch), _NUM_STEPS, _WIDTH, [prior])

    sides = {
        "cached targets": lambda: our_rate(plan, 1, at_hand, _NUM_STEPS, _WIDTH),
        "online distillation": online,
    }
    if has_bf16():
        sides["the same in bf16-mixed"] = lambda: our_rate(
            plan, 1, at_hand, _NUM_STEPS, _WIDTH, precision="bf16-mixed"
        )
    steps = compare(
        f"stage-1 step, {_MODEL} at {_IMAGE_SIZE} px, batches of {_BATCH_SIZE}, "
        "a prior of the same architecture", "img/s",
        sides, rounds, {"online distillation": 1.3},
    )  # fmt: skip
    targets = _targets(scratch / f"targets-{_NUM_TARGETS}x{_WIDTH}.h5")
    shares = [100 * fetch_seconds(targets.values) * rate / _BATCH_SIZE for rate in steps.ours]
    title = f"fetching a batch's targets, {_NUM_TARGETS:,} rows of {_WIDTH}"
    return [steps, Figure(title, "% of the step", shares, 0.5)]


def fetch_seconds(values: torch.Tensor) -> float:
    """Seconds to gather one batch of random rows."""
    draw = np.random.default_rng(0)
    rows = [
        torch.from_numpy(draw.choice(len(values), _BATCH_SIZE, replace=False))
        for _ in range(_NUM_FETCHES)
    ]
    start = time.perf_counter()
    for some in rows:
        values.index_select(0, some)
    return (time.perf_counter() - start) / _NUM_FETCHES


def _targets(path: Path) -> Targets:
    """Random ones in a file as `rela train` opens it."""
    if not path.is_file():
        draw = np.random.default_rng(0)
        parts = (
            draw.standard_normal((min(ROWS_PER_PART, _NUM_TARGETS - start), _WIDTH), np.float32)
            for start in range(0, _NUM_TARGETS, ROWS_PER_PART)
        )
        unfinished = path.with_suffix(".tmp")
        write_matrix(unfinished, parts, (_NUM_TARGETS, _WIDTH), "float16", {})
        unfinished.replace(path)
    return open_targets(path, _NUM_TARGETS)
