"""Checkpoints of a run (rela.training.checkpoints).

Those that are damaged, incomplete or without a record don't count, which is said; two are kept, and what a
killed process left is cleared. A checkpoint is on the disk before its record.
"""

import errno
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from disk_calls import disk_calls
from small_runs import (
    PLAN,
    assert_same_run,
    beton,
    on_the_cpu,
    train,
    uninterrupted,
)

from rela.data.beton.reader import Beton
from rela.training.checkpoints import RunCheckpoint, newest_checkpoint
from rela.training.run import METRICS_FILE
from rela.training.run_directory import append_record, read_records

__all__ = ["beton", "disk_calls", "on_the_cpu", "uninterrupted"]  # fixtures


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
        f"warning: {tmp_path / 'checkpoints' / 'step-00000006.ckpt'} cannot be used (damaged or "
        "missing); resuming from step-00000003.ckpt"
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


def test_a_disk_that_cannot_be_read_now_costs_no_checkpoint(
    tmp_path: Path, beton: Beton, two_epochs: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoints = copy_of(two_epochs, tmp_path) / "checkpoints"
    before = sorted(checkpoints.iterdir())

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("rela.training.checkpoints.file_sha256", fail)
        with pytest.raises(OSError, match="Input/output error"):
            train(PLAN, tmp_path, beton)
    assert sorted(checkpoints.iterdir()) == before


def test_a_checkpoint_is_on_the_disk_before_the_record_that_makes_it_count(
    tmp_path: Path, disk_calls: list[str]
):
    trainer: Any = SimpleNamespace(
        global_step=3, current_epoch=0, max_epochs=1, world_size=1, is_global_zero=True,
        save_checkpoint=lambda path: path.write_bytes(b"weights"),
    )  # fmt: skip
    callback = RunCheckpoint(tmp_path, {}, lambda: 0.0, interval_seconds=600)
    callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    name = "step-00000003"
    assert disk_calls == [
        f"fsync {name}.tmp", f"replace {name}.tmp {name}.ckpt", f"fsync {tmp_path.name}",
        f"fsync {name}.json.tmp", f"replace {name}.json.tmp {name}.json", f"fsync {tmp_path.name}",
    ]  # fmt: skip
    assert newest_checkpoint(tmp_path) is not None


def test_the_record_of_an_epoch_is_on_the_disk_before_its_checkpoint(
    tmp_path: Path, disk_calls: list[str]
):
    append_record(tmp_path / METRICS_FILE, {"epoch": 0})
    assert disk_calls == [f"fsync {METRICS_FILE}"]
    assert read_records(tmp_path / METRICS_FILE) == [{"epoch": 0}]
