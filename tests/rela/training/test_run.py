"""Whole runs (rela.training.run) of a few steps on the CPU.

- a run that was interrupted by an error, by Ctrl-C in the middle of an epoch, or killed, goes on to
  bitwise the weights, optimizer state and hand-over state of an uninterrupted one; dropout included;
- the seed alone decides a run;
- the hand-over comes where it was asked for and is said; epochs have ⌊rN / batch⌋ steps;
- the exported backbone is a torchvision model but for its classifier, and a prior.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_runs
import torch
import torchvision.models as tv
from safetensors.torch import load_file
from small_runs import (
    PLAN,
    STEPS_PER_EPOCH,
    assert_same_run,
    beton,
    losses,
    on_the_cpu,
    train,
    uninterrupted,
)
from tiny_methods import shrink_dino
from torch import nn

from rela.data.beton.reader import Beton
from rela.errors import ChoiceError
from rela.priors.earlier_run import load_backbone, read_identity
from rela.training.handover import FixedHandOver
from rela.training.run_directory import METRICS_FILE, read_records

__all__ = ["beton", "on_the_cpu", "uninterrupted"]  # fixtures


# Going on


@pytest.mark.parametrize(
    ("word", "error", "handover"),
    [
        ("epoch 2/3", RuntimeError, None),  # two epochs done, one of them saved
        ("epoch 2/3", KeyboardInterrupt, 0.8),  # in stage 1
        ("epoch 3/3", RuntimeError, 0.45),  # in stage 2
    ],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, beton: Beton, uninterrupted: Path, word: str, error: type[BaseException],
    handover: float | None,
):  # fmt: skip
    def interrupt(text: str) -> None:
        if text.startswith(word):
            raise error

    plan = replace(PLAN, handover=handover)
    expected = uninterrupted if handover is None else tmp_path / "expected"
    if handover is not None:
        train(plan, expected, beton)
    with pytest.raises(error):
        train(plan, tmp_path / "found", beton, interrupt)
    said: list[str] = []
    train(plan, tmp_path / "found", beton, said.append)
    assert said[0] == f"resuming after epoch {2 if word == 'epoch 3/3' else 1} of 3"
    assert_same_run(tmp_path / "found", expected)


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


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, beton: Beton, uninterrupted: Path
):
    program = "import sys, small_runs; small_runs.train_and_die(*sys.argv[1:])"
    threads = str(torch.get_num_threads())
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(beton.path)],
        cwd=Path(small_runs.__file__).parent,
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
    said: list[str] = []
    plan = replace(PLAN, handover=handover)
    outcome = train(plan, tmp_path, beton, said.append, with_targets=with_targets)
    stages = [record["stage"] for record in read_records(tmp_path / METRICS_FILE)]
    assert (outcome.handover_step, stages) == expected
    if expected[0] is not None:
        (line,) = [text for text in said if "hand-over" in text]
        assert f"step {expected[0]}" in line
    shown = [text.split("  ")[1] for text in said if text.startswith("epoch ")]
    step, per_epoch = expected[0], outcome.num_steps // 3
    if step is None:
        assert shown == [f"stage {stage}" for stage in stages]
    else:  # of the steps of the epoch, the last of stage 1 being `step`
        of_steps = [
            {1 if i < step else 2 for i in range(n * per_epoch, (n + 1) * per_epoch)}
            for n in range(3)
        ]
        assert shown == [f"stage {' and '.join(map(str, sorted(found)))}" for found in of_steps]


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
    ("name", "size"), [(PLAN.model, 16), ("mobilenet_v3_small", 32)]
)  # without and with dropout
def test_the_seed_alone_decides_the_run(tmp_path: Path, beton: Beton, name: str, size: int):
    plan = replace(PLAN, model=name, image_size=size, epochs=2)
    for global_seed, (run, seed) in enumerate({"first": 0, "again": 0, "other": 1}.items()):
        torch.manual_seed(global_seed)  # plays no part
        train(replace(plan, seed=seed), tmp_path / run, beton)
    assert losses(tmp_path / "first") != losses(tmp_path / "other")
    assert_same_run(tmp_path / "first", tmp_path / "again")


def test_the_ledger_counts_every_phase_and_grows_when_a_run_goes_on(tmp_path: Path, beton: Beton):
    before = time.process_time()
    outcomes = [train(replace(PLAN, epochs=epochs), tmp_path, beton) for epochs in (1, 2)]
    measured = time.process_time() - before
    first, second = (outcome.seconds for outcome in outcomes)
    assert 0 < outcomes[0].cpu_seconds < outcomes[1].cpu_seconds
    assert outcomes[1].cpu_seconds == pytest.approx(measured, rel=0.05)
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


@pytest.mark.parametrize("kind", ["reference", "paper"])
def test_of_dino_the_papers_teacher_and_the_references_student_are_exported(
    tmp_path: Path, beton: Beton, kind: Any, monkeypatch: pytest.MonkeyPatch
):
    shrink_dino(monkeypatch)
    plan = replace(PLAN, method="dino", hyperparameters=kind, local_crops=0, handover=0.5, epochs=2)
    train(plan, tmp_path, beton)
    checkpoint = torch.load(next((tmp_path / "checkpoints").glob("*.ckpt")), weights_only=True)
    prefixes = [f"method.{name}." for name in ("backbone", "momentum_backbone")]
    student, teacher = (
        {k.removeprefix(p): v for k, v in checkpoint["state_dict"].items() if k.startswith(p)}
        for p in prefixes
    )
    found = load_file(tmp_path / "backbone.safetensors")
    expected, other = (teacher, student) if kind == "paper" else (student, teacher)
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert not all(torch.equal(value, other[key]) for key, value in found.items())
    identity = read_identity(tmp_path)
    assert all(
        torch.isfinite(v).all() for v in load_backbone(tmp_path, identity).state_dict().values()
    )
