"""Publishing a run (rela.stages.train.fit): its files are on the disk before the manifest."""

from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, run_rela
from disk_calls import disk_calls

from rela.stages.workspace.run import DIGESTED_FILES
from rela.training.run import TrainingOutcome

__all__ = ["disk_calls"]  # a fixture


def test_a_run_is_on_the_disk_before_its_manifest(
    tmp_path: Path, small_tree: Path, monkeypatch: pytest.MonkeyPatch, disk_calls: list[str]
):
    def train(settings: Any, directory: Path, *rest: Any) -> TrainingOutcome:
        for name in DIGESTED_FILES:
            if not (directory / name).exists():
                (directory / name).write_text(name)
        return TrainingOutcome(
            handover_step=None, num_steps=3, final_loss=0.0, online_accuracy=None, seconds={},
            cpu_seconds=0.0, num_devices=1, is_global_zero=True,
        )  # fmt: skip

    monkeypatch.setattr("rela.training.run.run_training", train)
    rela = ("--workspace", tmp_path / "workspace")
    run_rela(*rela, "convert", small_tree)
    disk_calls.clear()
    run_rela(*rela, "train", "--prior", "none", "--epochs", 1, *TINY, "--name", "first")
    published = disk_calls.index("replace .manifest.json manifest.json")
    assert {f"fsync {name}" for name in DIGESTED_FILES} <= set(disk_calls[:published])
    assert disk_calls[published + 1 :] == ["fsync first"]
