"""Whole runs (rela.training, rela.checkpoints) of a few steps on the CPU.

- a run that was interrupted by an error, by Ctrl-C in the middle of an epoch, or killed, goes on to
  bitwise the weights, optimizer state and hand-over state of an uninterrupted one; dropout included;
- the seed alone decides a run;
- checkpoints that are damaged, incomplete or without a record don't count; two are kept;
- the hand-over comes where it was asked for and is said; epochs have ⌊rN / batch⌋ steps;
- the exported backbone is a torchvision model but for its classifier, and a prior.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models as tv
from conftest import picture
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from rela.beton import Beton, open_beton
from rela.beton_writer import write_beton
from rela.checkpoints import newest_checkpoint
from rela.encoding import Encoding
from rela.errors import ChoiceError
from rela.handover import FixedHandOver
from rela.image_folder import Sample
from rela.optimizers import OptimizerSettings
from rela.priors.run_prior import load_backbone, read_identity
from rela.targets import Targets
from rela.training import METRICS_FILE, TrainingOutcome, TrainingPlan, run_training

NUM_IMAGES, BATCH_SIZE, STEPS_PER_EPOCH = 12, 4, 3
PLAN = TrainingPlan(
    method="byol",
    hyperparameters="reference",
    ema=None,
    local_crops=None,
    min_scale=None,
    optimizer=OptimizerSettings("adamw", 1e-3, 0.01, "constant", decay_all=True),
    model="shufflenet_v2_x0_5",
    image_size=16,
    handover=None,
    learn_head=False,
    data_ratio=1.0,
    epochs=3,
    batch_size=BATCH_SIZE,
    accumulate=1,
    seed=0,
    precision="32-true",
    devices="1",
    checkpoint_seconds=3600,
)


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory) -> Beton:
    root = tmp_path_factory.mktemp("images")
    for i in range(NUM_IMAGES):
        Image.fromarray(picture(i, 16, 16)).save(root / f"{i}.png")
    samples = [Sample(f"{i}.png", i % 3) for i in range(NUM_IMAGES)]
    write_beton(root / "images.beton", root, samples, Encoding("raw"), num_workers=1)
    return open_beton(root / "images.beton")


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
    plan: TrainingPlan,
    directory: Path,
    beton: Beton,
    say: Callable[[str], None] = lambda text: None,
    with_targets: bool = True,
) -> TrainingOutcome:
    directory.mkdir(exist_ok=True)
    return run_training(
        plan=plan,
        directory=directory,
        beton=beton,
        targets=make_targets() if with_targets else None,
        num_classes=3,
        name="a-run",
        start=time.perf_counter(),
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


def losses(directory: Path) -> list[tuple[int, float]]:
    lines = (directory / METRICS_FILE).read_text().splitlines()
    return [(record["epoch"], record["loss"]) for record in map(json.loads, lines)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, beton: Beton) -> Path:
    directory = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        train(PLAN, directory, beton)
    return directory


# Going on


def assert_same_run(found: Path, expected: Path) -> None:
    assert same(final_state(found), final_state(expected))
    assert losses(found) == losses(expected)


@pytest.mark.parametrize(
    ("word", "error", "handover"),
    [
        ("epoch 2/3", RuntimeError, None),  # two epochs done, one of them saved
        ("epoch 2/3", KeyboardInterrupt, 0.8),  # in stage 1
        ("epoch 3/3", RuntimeError, 0.45),  # in stage 2
    ],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, beton: Beton, word: str, error: type[BaseException], handover: float | None
):
    def interrupt(text: str) -> None:
        if text.startswith(word):
            raise error

    plan = replace(PLAN, handover=handover)
    train(plan, tmp_path / "expected", beton)
    with pytest.raises(error):
        train(plan, tmp_path / "found", beton, interrupt)
    said: list[str] = []
    train(plan, tmp_path / "found", beton, said.append)
    assert said[0] == f"resuming after epoch {2 if word == 'epoch 3/3' else 1} of 3"
    assert_same_run(tmp_path / "found", tmp_path / "expected")


def test_ctrl_c_in_the_middle_of_an_epoch_loses_that_epoch_alone(
    tmp_path: Path, beton: Beton, monkeypatch: pytest.MonkeyPatch
):
    plan = replace(PLAN, handover=0.7)
    train(plan, tmp_path / "expected", beton)
    original, calls = FixedHandOver.update, itertools.count(1)

    def interrupt(self: FixedHandOver, loss: float) -> bool:
        if next(calls) == STEPS_PER_EPOCH + 2:
            raise KeyboardInterrupt
        return original(self, loss)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(FixedHandOver, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "found", beton)
    monkeypatch.setattr(FixedHandOver, "update", original)
    assert signal.getsignal(signal.SIGINT) is handler
    said: list[str] = []
    train(plan, tmp_path / "found", beton, said.append)
    assert said[0] == "resuming after epoch 1 of 3"
    assert_same_run(tmp_path / "found", tmp_path / "expected")


def test_dropout_goes_on_where_it_was(tmp_path: Path, beton: Beton):
    plan = replace(PLAN, model="mobilenet_v3_small", image_size=32)
    torch.manual_seed(1)
    train(plan, tmp_path / "expected", beton)
    torch.manual_seed(1)
    train(replace(plan, epochs=1), tmp_path / "found", beton)
    torch.manual_seed(2)
    train(plan, tmp_path / "found", beton)
    assert_same_run(tmp_path / "found", tmp_path / "expected")


def train_and_die(directory: str, beton: str) -> None:
    """In a process of its own: killed when the second epoch is over and not yet saved."""

    def die(text: str) -> None:
        if text.startswith("epoch 2/3"):
            os.kill(os.getpid(), signal.SIGKILL)

    train(PLAN, Path(directory), open_beton(Path(beton)), die)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, beton: Beton, uninterrupted: Path
):
    program = "import sys, test_training; test_training.train_and_die(*sys.argv[1:])"
    threads = str(torch.get_num_threads())
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(beton.path)],
        cwd=Path(__file__).parent,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads},
    )
    assert killed.returncode == -signal.SIGKILL
    train(PLAN, tmp_path, beton)
    assert_same_run(tmp_path, uninterrupted)


def test_more_epochs_go_on_from_a_finished_run(tmp_path: Path, beton: Beton, uninterrupted: Path):
    train(replace(PLAN, epochs=2), tmp_path, beton)
    train(PLAN, tmp_path, beton)
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, beton: Beton, uninterrupted: Path):
    for _ in range(2):
        outcome = train(PLAN, tmp_path, beton)
        assert outcome.num_steps == 3 * STEPS_PER_EPOCH
    assert_same_run(tmp_path, uninterrupted)


# Checkpoints


def _flip_a_bit(checkpoints: Path) -> None:
    path = checkpoints / "step-00000006.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(checkpoints: Path) -> None:
    path = checkpoints / "step-00000006.ckpt"
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "a flipped bit": _flip_a_bit,
    "truncated": _truncate,
    "no checkpoint": lambda checkpoints: (checkpoints / "step-00000006.ckpt").unlink(),
    "no record": lambda checkpoints: (checkpoints / "step-00000006.json").unlink(),
    "half a record": lambda checkpoints: (checkpoints / "step-00000006.json").write_text('{"sha25'),
    "another record": lambda checkpoints: (checkpoints / "step-00000006.json").write_text("[]"),
}


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory: pytest.TempPathFactory, beton: Beton) -> Path:
    directory = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        train(replace(PLAN, epochs=2), directory, beton)
    return directory


def copy_of(directory: Path, destination: Path) -> Path:
    for path in directory.rglob("*.*"):
        if path.is_file():
            copied = destination / path.relative_to(directory)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    return destination


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_is_not_whole_gives_way_to_the_one_before(
    tmp_path: Path, two_epochs: Path, damage: str
):
    checkpoints = copy_of(two_epochs, tmp_path) / "checkpoints"
    found = newest_checkpoint(checkpoints)
    assert found is not None and found[0].name == "step-00000006.ckpt"
    DAMAGES[damage](checkpoints)
    found = newest_checkpoint(checkpoints)
    assert found is not None and found[0].name == "step-00000003.ckpt"


def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(
    tmp_path: Path, beton: Beton, two_epochs: Path, uninterrupted: Path
):
    _flip_a_bit(copy_of(two_epochs, tmp_path) / "checkpoints")
    said: list[str] = []
    train(PLAN, tmp_path, beton, said.append)
    assert said[0] == (
        f"warning: {tmp_path / 'checkpoints' / 'step-00000006.ckpt'} cannot be used (damaged, or "
        "missing); going on from step-00000003.ckpt"
    )
    assert said[1] == "resuming after epoch 1 of 3"
    assert_same_run(tmp_path, uninterrupted)


def test_what_a_killed_process_left_of_checkpoints_is_cleared(
    tmp_path: Path, beton: Beton, two_epochs: Path, uninterrupted: Path
):
    checkpoints = copy_of(two_epochs, tmp_path) / "checkpoints"
    for name in ("step-00000007.tmp", "step-00000008.ckpt", "step-00000008.json.tmp"):
        (checkpoints / name).write_bytes(b"half")
    train(PLAN, tmp_path, beton)
    assert_same_run(tmp_path, uninterrupted)
    assert sorted(p.name for p in checkpoints.iterdir()) == sorted(
        p.name for p in (uninterrupted / "checkpoints").iterdir()
    )


def test_half_a_line_of_metrics_does_not_stop_a_run_from_going_on(
    tmp_path: Path, beton: Beton, two_epochs: Path, uninterrupted: Path
):
    with open(copy_of(two_epochs, tmp_path) / METRICS_FILE, "a") as file:
        file.write('{"epoch": 2, "lo')  # a full disk, or a kill, in the middle of a write
    train(PLAN, tmp_path, beton)
    assert_same_run(tmp_path, uninterrupted)


def test_without_a_whole_checkpoint_a_run_starts_again(
    tmp_path: Path, beton: Beton, two_epochs: Path, uninterrupted: Path
):
    for record in (copy_of(two_epochs, tmp_path) / "checkpoints").glob("*.json"):
        record.unlink()
    assert newest_checkpoint(tmp_path / "checkpoints") is None
    train(PLAN, tmp_path, beton)
    assert_same_run(tmp_path, uninterrupted)


def test_the_last_two_checkpoints_are_kept(uninterrupted: Path):
    assert {path.name for path in (uninterrupted / "checkpoints").iterdir()} == {
        f"step-0000000{step}.{kind}" for step in (6, 9) for kind in ("ckpt", "json")
    }


def test_where_nothing_was_saved_there_is_no_checkpoint(tmp_path: Path):
    assert newest_checkpoint(tmp_path / "nothing") is None


# The plan


@pytest.mark.parametrize(
    ("handover", "with_targets", "expected"),
    [
        (0.45, True, (4, [1, 2, 2])),
        (1.0, True, (None, [1, 1, 1])),
        (0.0, True, (None, [2, 2, 2])),
        (None, False, (None, [2, 2, 2])),
        (None, True, (None, [1, 1, 1])),
    ],
    ids=["fraction", "stage 1 alone", "no stage 1", "no targets", "adaptive, not there yet"],
)
def test_the_hand_over_comes_where_the_plan_says(
    tmp_path: Path,
    beton: Beton,
    handover: float | None,
    with_targets: bool,
    expected: tuple[int | None, list[int]],
):
    plan = replace(PLAN, handover=handover)
    outcome = train(plan, tmp_path, beton, with_targets=with_targets)
    stages = [
        json.loads(line)["stage"] for line in (tmp_path / METRICS_FILE).read_text().splitlines()
    ]
    assert (outcome.handover_step, stages) == expected


@pytest.mark.parametrize(
    ("changes", "num_steps"),
    [
        ({"epochs": 1}, 3),
        ({"epochs": 2, "data_ratio": 0.7}, 2 * 2),  # 8 of 12 images
        ({"epochs": 1, "batch_size": 5}, 2),  # the incomplete third batch is left out
        ({"epochs": 1, "accumulate": 2}, 3),
    ],
)
def test_an_epoch_has_as_many_steps_as_full_batches(
    tmp_path: Path, beton: Beton, changes: dict[str, Any], num_steps: int
):
    assert train(replace(PLAN, **changes), tmp_path, beton).num_steps == num_steps


def test_a_batch_that_is_never_full_is_refused(tmp_path: Path, beton: Beton):
    with pytest.raises(ChoiceError, match="batch"):
        train(replace(PLAN, data_ratio=0.2), tmp_path, beton)


@pytest.mark.parametrize("devices", ["many", "0;1", ""])
def test_devices_that_make_no_sense_are_refused(tmp_path: Path, beton: Beton, devices: str):
    with pytest.raises(ChoiceError, match="--devices"):
        train(replace(PLAN, devices=devices), tmp_path, beton)


@pytest.mark.parametrize(
    ("name", "size"), [("shufflenet_v2_x0_5", 16), ("mobilenet_v3_small", 32)]
)  # without and with dropout
def test_the_seed_alone_decides_the_run(tmp_path: Path, beton: Beton, name: str, size: int):
    plan = replace(PLAN, model=name, image_size=size, epochs=2)
    for global_seed, (run, seed) in enumerate({"first": 0, "again": 0, "other": 1}.items()):
        torch.manual_seed(global_seed)  # plays no part
        train(replace(plan, seed=seed), tmp_path / run, beton)
    assert losses(tmp_path / "first") != losses(tmp_path / "other")
    assert_same_run(tmp_path / "first", tmp_path / "again")


def test_the_hand_over_is_said_once_with_its_step(tmp_path: Path, beton: Beton):
    said: list[str] = []
    train(replace(PLAN, handover=0.45), tmp_path, beton, said.append)
    (line,) = [text for text in said if "hand-over" in text]
    assert "step 4" in line


def test_the_ledger_counts_every_phase_and_grows_when_a_run_goes_on(tmp_path: Path, beton: Beton):
    first = train(replace(PLAN, epochs=1), tmp_path, beton).seconds
    second = train(replace(PLAN, epochs=2), tmp_path, beton).seconds
    assert {"startup", "stage1", "data_wait", "checkpoint", "other"} <= first.keys()
    assert all(second[phase] >= first[phase] for phase in ("stage1", "data_wait", "startup"))


# The export


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_the_exported_backbone_is_a_torchvision_model_but_for_its_classifier(
    tmp_path: Path, beton: Beton, name: str
):
    train(replace(PLAN, model=name, image_size=32, epochs=1), tmp_path, beton)
    model = tv.get_model(name)
    last = "fc" if name == "resnet18" else "classifier.3"
    report = model.load_state_dict(load_file(tmp_path / "backbone.safetensors"), strict=False)
    assert (set(report.missing_keys), report.unexpected_keys) == (
        {f"{last}.weight", f"{last}.bias"},
        [],
    )
    model.set_submodule(last, nn.Identity())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        as_prior = load_backbone(tmp_path, read_identity(tmp_path))(images)
        torch.testing.assert_close(as_prior, model.eval()(images))
