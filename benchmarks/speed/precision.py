"""Steps of both stages on a CPU: convolutions of torch alone, rela's in float32, and in bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from benchmarks.speed.comparison import Comparison, compare
from benchmarks.speed.training_steps import byol_plan, our_rate, random_batch
from rela.data.memory import keep_freed_memory
from rela.models import small_convolutions

# model, image size, batch size, steps that are timed
_SETTINGS = (
    ("resnet18", 64, 64, 1),
    ("resnet18", 32, 128, 1),
    ("timm:test_resnet", 28, 128, 8),
    ("timm:vit_small_patch16_224", 224, 8, 1),
)
_WIDTH = 96


def run(rounds: int, scratch: Path) -> list[Comparison]:
    keep_freed_memory()
    return [
        _compared(model, size, batch, steps, stage, rounds)
        for model, size, batch, steps in _SETTINGS
        for stage in (1, 2)
    ]


def _compared(
    model: str, image_size: int, batch_size: int, num_steps: int, stage: int, rounds: int
) -> Comparison:
    plan = byol_plan(model, image_size, batch_size)
    batch = {**random_batch(plan), "targets": [torch.randn(batch_size, _WIDTH).half()] * 2}

    def step(precision: str) -> float:
        return our_rate(plan, stage, batch, num_steps + 1, _WIDTH, precision=precision)

    def plain() -> float:
        with _convolutions_of_torch():
            return step("32-true")

    return compare(
        f"stage-{stage} step, {model} at {image_size} px, batches of {batch_size}", "img/s",
        {
            "bf16-mixed": lambda: step("bf16-mixed"),
            "32-true": lambda: step("32-true"),
            "32-true, torch's convolutions": plain,
        },
        rounds, {"32-true, torch's convolutions": 1.45},
    )  # fmt: skip


@contextmanager
def _convolutions_of_torch() -> Iterator[None]:
    with mock.patch.object(small_convolutions, "_MOST_PIXELS", {}):
        yield
