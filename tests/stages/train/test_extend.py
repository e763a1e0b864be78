"""Extending a finished run (rela.stages.train.extend).

- with a constant rate and no prior, two epochs extended to four have bitwise the weights of four at once;
- with a cosine, the rate of every epoch is that of the longer cosine, and it is said;
- a killed extension resumes; the same command again is a cache hit; fewer epochs are refused;
- of two processes that extend a run at the same moment, one trains and the other says so.
"""

import contextlib
import json
import math
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from command_line import TINY, Rela
from safetensors.torch import load_file

from rela.pipeline.locks import exclusive
from rela.stages.train import train
from rela.stages.workspace.run import LOCK_FILE
from rela.training import checkpoints
from rela.training import run as training

RUNS = Path("workspace/runs")
BYOL = ("--prior", "none", *TINY)
CONSTANT = (*BYOL, "--hyperparameters", "reference")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def rates(run: str) -> list[float]:
    lines = (RUNS / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["lr"] for line in lines]


def test_an_extended_run_equals_one_trained_at_once(rela: Rela, images: Path):
    rela("train", *CONSTANT, "--epochs", 2, "--name", "short")
    said = rela("train", "--resume", "--name", "short", "--epochs", 4).output
    assert "extends run short from 2 to 4 epochs: the learning rate stays constant" in said
    assert "resuming after epoch 2 of 4" in said
    rela("train", *CONSTANT, "--epochs", 4, "--name", "long")
    found, expected = (
        load_file(RUNS / name / "backbone.safetensors") for name in ("short-4-epochs", "long")
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    costs = [json.loads((RUNS / n / "cost.json").read_text()) for n in ("short", "short-4-epochs")]
    assert costs[1]["seconds"]["stage2"] > costs[0]["seconds"]["stage2"]
    again = rela("train", "--resume", "--name", "short", "--epochs", 4).output
    assert "run short-4-epochs with these settings is already finished" in again
    refused = rela("train", "--resume", "--name", "short", "--epochs", 2, exit_code=2).output
    assert "run short has 2 epochs already; give more" in refused


def test_the_cosine_becomes_that_of_all_epochs(
    rela: Rela, images: Path, monkeypatch: pytest.MonkeyPatch
):
    rela("train", *BYOL, "--epochs", 2, "--name", "short")
    end = rates("short")[-1]
    with monkeypatch.context() as patch:
        patch.setattr(training, "_fit", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        interrupted = ("train", "--resume", "--name", "short", "--epochs", 4)
        said = rela(*interrupted, exit_code=130).output
    assert "follows the cosine of 4 epochs from epoch 2 on, so it rises first" in said
    assert f"its learning rate, {end:.2g} at the end" in said
    config = RUNS / "short-4-epochs" / "config.json"
    written = config.read_text()
    config.write_text(written.replace('"weight_decay": 0.01', '"weight_decay": 0.5'))
    assert "was changed after the run began" in rela("train", "--resume", exit_code=65).output
    config.write_text(written)
    rela(*interrupted)
    steps = 3 * 4  # 24 images in batches of 8
    found = rates("short-4-epochs")
    assert found[:2] == rates("short")
    for epoch in (2, 3):  # the rate after the epoch's last step
        share = (3 * (epoch + 1) - 1) / (steps - 1)
        cosine = 0.001 + (1 - 0.001) * (1 + math.cos(math.pi * share)) / 2
        assert found[epoch] == pytest.approx(0.003 * cosine, rel=0.1, abs=1e-5)
    assert found[2] > end


def test_two_processes_extend_a_run_at_the_same_moment(
    rela: Rela, images: Path, monkeypatch: pytest.MonkeyPatch
):
    rela("train", *BYOL, "--epochs", 1, "--name", "short")
    longer = ("train", "--resume", "--name", "short", "--epochs", 3)
    for module, step in ((checkpoints, "newest_checkpoint"), (train, "begin_extension")):
        with contextlib.ExitStack() as other, monkeypatch.context() as patch:
            original = getattr(module, step)

            def after_the_other(*arguments: object) -> object:
                """The other process has made the directory, and trains by now."""
                with monkeypatch.context() as inner:
                    inner.setattr(module, step, original)  # noqa: B023
                    inner.setattr(training, "_fit", Mock(side_effect=KeyboardInterrupt))
                    rela(*longer, exit_code=130)
                other.enter_context(exclusive(RUNS / "short-3-epochs" / LOCK_FILE))
                return original(*arguments)  # noqa: B023

            patch.setattr(module, step, after_the_other)
            said = rela(*longer, exit_code=75).output
        assert "run short-3-epochs is being trained by another process (process " in said
        assert not list(RUNS.glob(".staging*"))
        shutil.rmtree(RUNS / "short-3-epochs")


def test_without_a_checkpoint_it_says_so(rela: Rela, images: Path):
    rela("train", *BYOL, "--epochs", 1, "--name", "short")
    shutil.rmtree(RUNS / "short" / "checkpoints")
    said = rela("train", "--resume", "--name", "short", "--epochs", 3, exit_code=2).output
    assert "run short has no checkpoint any more" in said
    assert not (RUNS / "short-3-epochs").exists()
