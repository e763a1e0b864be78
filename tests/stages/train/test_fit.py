"""What `rela train` says, and how it publishes a run (rela.stages.train.fit).

- the files of a run are on the disk before the manifest;
- the facts that matter come first, every setting with --verbose; warnings and the next command last;
- two runs that begin at the same moment get different numbers.
"""

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Rela, run_rela
from disk_calls import disk_calls

from rela.pipeline.locks import exclusive
from rela.stages.train import train
from rela.stages.workspace.run import DIGESTED_FILES, LOCK_FILE
from rela.training.run import TrainingOutcome

__all__ = ["disk_calls"]  # a fixture


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that warns and ends at once."""

    def train(settings: Any, directory: Path, *rest: Any) -> TrainingOutcome:
        rest[5]("warning: all features are alike")
        for name in DIGESTED_FILES:
            if not (directory / name).exists():
                (directory / name).write_text(name)
        return TrainingOutcome(
            handover_step=None, num_steps=3, final_loss=0.0, online_accuracy=None, seconds={},
            cpu_seconds=0.0, num_devices=1, is_global_zero=True,
        )  # fmt: skip

    monkeypatch.setattr("rela.training.run.run_training", train)


def test_a_run_is_on_the_disk_before_its_manifest(
    tmp_path: Path, small_tree: Path, disk_calls: list[str]
):
    rela = ("--workspace", tmp_path / "workspace")
    run_rela(*rela, "convert", small_tree)
    disk_calls.clear()
    run_rela(*rela, "train", "--prior", "none", "--epochs", 1, *TINY, "--name", "first")
    published = disk_calls.index("replace .manifest.json manifest.json")
    assert {f"fsync {name}" for name in DIGESTED_FILES} <= set(disk_calls[:published])
    assert disk_calls[published + 1 :] == ["fsync first"]


def test_what_matters_is_said_first_and_what_is_next_last(
    rela: Rela, images: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rela.distributed.strategy.num_cores", lambda: 5)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    alone = rela("train", "--prior", "none", "--epochs", 2, *TINY, "--name", "first")
    assert alone.stderr.splitlines()[:7] == [
        "run first",
        "  data    images: 24 images, 3 classes",
        "  prior   none: the algorithm alone",
        "  model   timm:test_resnet, views of 32×32 pixels, by byol",
        "  budget  2 epochs: 6 steps of 8 images",
        "  device  CPU, 5 cores, 32-true",
        "  all settings are in workspace/runs/first/config.json; --verbose prints them",
    ]
    *_, title, warned, after = alone.stdout.splitlines()
    assert (title, warned) == ("warnings:", "- all features are alike")
    assert after == "next: `rela eval first`"
    both = rela("train", "--prior", "random", "--epochs", 2, *TINY, "--verbose").stderr
    assert "  weight_decay: 0.01\n" in both
    assert "  budget  2 epochs: 6 steps of 8 images, stage 2 begins after 3 steps" in both


def test_two_runs_begin_at_the_same_moment(
    rela: Rela, images: Path, monkeypatch: pytest.MonkeyPatch
):
    taken, original = Path("workspace/runs/images-byol-1"), train.new_run_directory

    def before_the_other(*arguments: Any) -> Path:
        """The other process locks the directory that this one has chosen, then writes its settings."""
        directory = original(*arguments)
        if not taken.exists():
            taken.mkdir(parents=True)
            other.enter_context(exclusive(taken / LOCK_FILE))
            write = (taken / "config.json").write_text
            threading.Timer(0.2, write, ['{"fingerprint": "another"}']).start()
        return directory

    monkeypatch.setattr(train, "new_run_directory", before_the_other)
    with contextlib.ExitStack() as other:
        rela("train", "--prior", "none", *TINY)
    assert taken.with_name("images-byol-2").joinpath("manifest.json").is_file()
