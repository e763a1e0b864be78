"""Runs of a few steps on the CPU, and whether two of them are the same to the last bit."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from betons import beton_of
from pictures import save_tree
from safetensors.torch import load_file
from torch import Tensor

from rela.data.beton.reader import Beton, open_beton
from rela.pipeline.spent import Spent
from rela.representations.targets import Targets
from rela.training.checkpoints import newest_checkpoint
from rela.training.run import METRICS_FILE, TrainingOutcome, run_training
from rela.training.settings import ResolvedSettings

NUM_IMAGES, BATCH_SIZE, STEPS_PER_EPOCH = 12, 4, 3
PLAN = ResolvedSettings(
    method="byol",
    hyperparameters="reference",
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.01,
    schedule="constant",
    warmup_epochs=0,
    model="timm:test_resnet",
    image_size=16,
    epochs=3,
    batch_size=BATCH_SIZE,
    precision="32-true",
    devices="1",
    checkpoint_minutes=60,
)


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory) -> Beton:
    sizes = {f"{i}.png": (16, 16) for i in range(NUM_IMAGES)}
    return beton_of(save_tree(tmp_path_factory.mktemp("images"), sizes), num_classes=3)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Bitwise comparisons want the CPU's determinism. Leaves no checkpoints behind."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    for checkpoint in tmp_path.rglob("*.ckpt"):
        checkpoint.unlink()


def make_targets() -> Targets:
    return Targets(torch.randn(NUM_IMAGES, 6, generator=torch.Generator().manual_seed(0)).half())


def train(
    plan: ResolvedSettings,
    directory: Path,
    beton: Beton,
    say: Callable[[str], None] = lambda text: None,
    with_targets: bool = True,
) -> TrainingOutcome:
    directory.mkdir(exist_ok=True)
    return run_training(
        settings=plan,
        directory=directory,
        beton=beton,
        targets=make_targets() if with_targets else None,
        num_classes=3,
        name="a-run",
        start=Spent.now(),
        say=say,
    )


def same(first: Any, second: Any) -> bool:
    """Bitwise equality of nested states."""
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def final_state(directory: Path) -> dict[str, Any]:
    """What a run ended with: its last checkpoint and what it exported."""
    newest = newest_checkpoint(directory / "checkpoints")
    assert newest is not None
    checkpoint = torch.load(newest[0], weights_only=True)
    return {
        "epochs_done": newest[1]["epochs_done"],
        "step": checkpoint["global_step"],
        "weights": checkpoint["state_dict"],
        "optimizer": checkpoint["optimizer_states"],
        "stages": {k: v for k, v in checkpoint["rela"].items() if k != "torch_rng_state"},
        "backbone": load_file(directory / "backbone.safetensors"),
    }


_TIMES = {"images_per_second", "epoch_seconds", "data_wait_share"}


def records(directory: Path) -> list[dict[str, Any]]:
    """Of every epoch, without the times."""
    lines = (directory / METRICS_FILE).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in _TIMES} for line in lines]


def losses(directory: Path) -> list[tuple[int, float]]:
    return [(record["epoch"], record["loss"]) for record in records(directory)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, beton: Beton) -> Path:
    directory = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        train(PLAN, directory, beton)
    return directory


def assert_same_run(found: Path, expected: Path) -> None:
    assert same(final_state(found), final_state(expected))
    assert records(found) == records(expected)


def train_and_die(directory: str, beton: str) -> None:
    """In a process of its own: killed when the second epoch is over and not yet saved."""

    def die(text: str) -> None:
        if text.startswith("epoch 2/3"):
            os.kill(os.getpid(), signal.SIGKILL)

    train(PLAN, Path(directory), open_beton(Path(beton)), die)
