"""Stopping and resuming in the middle of an epoch.

- whatever the step at which a run dies, it goes on to bitwise the weights, optimizer, averages and
  epoch records of an uninterrupted one: in stage 1, at and after the hand-over, with accumulation;
- SIGTERM and SIGUSR1 finish the step, save, and end with PreemptedError; signals then mean again what
  they meant before; the command line ends with status 75, at which examples/slurm.sbatch is queued again;
- a checkpoint falls due by time, and counts the steps that were learned, not the batches fetched.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run_rela
from small_runs import PLAN, STEPS_PER_EPOCH, assert_same_run, beton, on_the_cpu, train

from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.errors import PreemptedError
from rela.pipeline.processes import PREEMPTION_SIGNALS
from rela.training.checkpoints import newest_checkpoint

__all__ = ["beton", "on_the_cpu"]  # fixtures
REPOSITORY = Path(__file__).parents[3]
EVERY_STEP = replace(PLAN, handover=0.5, anchor=0.5, checkpoint_minutes=0)


def fail_at_batch(patch: pytest.MonkeyPatch, number: int) -> None:
    """The loader fails when batch `number` (from 1, over all epochs) is asked for."""
    original, calls = ViewLoader._result, itertools.count(1)

    def result(self: ViewLoader, *arguments: object) -> object:
        if next(calls) == number:
            raise RuntimeError("a disk died")
        return original(self, *arguments)

    patch.setattr(ViewLoader, "_result", result)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, beton: Beton) -> Path:
    """A run in one go that saves at the ends of epochs alone."""
    directory = tmp_path_factory.mktemp("expected")
    train(replace(EVERY_STEP, checkpoint_minutes=60), directory, beton)
    return directory


@pytest.mark.parametrize("batch", range(3, 3 * STEPS_PER_EPOCH + 1))
def test_a_run_that_dies_at_any_step_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, beton: Beton, expected: Path, monkeypatch: pytest.MonkeyPatch, batch: int
):
    with monkeypatch.context() as patch:
        fail_at_batch(patch, batch)
        with pytest.raises(RuntimeError, match="a disk died"):
            train(EVERY_STEP, tmp_path, beton)
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    # the step before was learned when this batch was asked for, but is saved when it has come
    assert newest[1]["step"] == batch - (1 if (batch - 1) % STEPS_PER_EPOCH == 0 else 2)
    said: list[str] = []
    train(EVERY_STEP, tmp_path, beton, said.append)
    assert said[0].startswith("resuming after ")
    assert_same_run(tmp_path, expected)


def test_micro_batches_are_not_saved_in_between(
    tmp_path: Path, beton: Beton, monkeypatch: pytest.MonkeyPatch
):
    plan = replace(EVERY_STEP, accumulate=2)
    train(plan, tmp_path / "expected", beton)
    with monkeypatch.context() as patch:
        fail_at_batch(patch, 2 * STEPS_PER_EPOCH + 4)
        with pytest.raises(RuntimeError, match="a disk died"):
            train(plan, tmp_path / "found", beton)
    said: list[str] = []
    train(plan, tmp_path / "found", beton, said.append)
    assert said[0] == f"resuming after step {STEPS_PER_EPOCH + 1}, in epoch 2 of 3"
    assert_same_run(tmp_path / "found", tmp_path / "expected")


@pytest.mark.parametrize("number", PREEMPTION_SIGNALS)
def test_a_run_that_has_to_make_room_saves_and_goes_on(
    tmp_path: Path, beton: Beton, expected: Path, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
):  # fmt: skip
    original, calls = ViewLoader._result, itertools.count(1)

    def tell(self: ViewLoader, *arguments: object) -> object:
        if next(calls) == STEPS_PER_EPOCH + 2:  # while step 4 is over and batch 5 is made
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    handlers = [signal.getsignal(each) for each in PREEMPTION_SIGNALS]
    plan = replace(EVERY_STEP, checkpoint_minutes=60)
    with monkeypatch.context() as patch:
        patch.setattr(ViewLoader, "_result", tell)
        with pytest.raises(PreemptedError) as raised:
            train(plan, tmp_path, beton)
    step = STEPS_PER_EPOCH + 1
    assert str(raised.value) == (
        f"{number.name}: saved after step {step}; resume with `rela train --resume`"
    )
    assert [signal.getsignal(each) for each in PREEMPTION_SIGNALS] == handlers
    said: list[str] = []
    train(plan, tmp_path, beton, said.append)
    assert said[0] == f"resuming after step {step}, in epoch 2 of 3"
    assert_same_run(tmp_path, expected)


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment with an srun that runs on this machine, and an scontrol that notes what it is told."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "srun").write_text('#!/bin/sh\nshift  # --gpu-bind=none\nexec "$@"\n')
    (commands / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol\n')
    (commands / "rela").write_text(f'#!/bin/sh\nexec {sys.executable} -m rela "$@"\n')
    for command in commands.iterdir():
        command.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "SLURM_JOB_ID": "7",
        "RELA_WORKSPACE": str(tmp_path / "workspace"),
    }


def test_a_batch_job_that_has_to_make_room_saves_and_is_queued_again(
    small_tree: Path, tmp_path: Path, slurm: dict[str, str]
):
    arguments = ["--prior", "none", "--model", "shufflenet_v2_x0_5", "--image-size", "32",
                 "--batch-size", "4", "--epochs", "400", "--name", "long"]  # fmt: skip
    run_rela("--workspace", tmp_path / "workspace", "convert", small_tree)
    with subprocess.Popen(
        [REPOSITORY / "examples" / "slurm.sbatch", *arguments],
        env=slurm, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as job:  # fmt: skip
        assert job.stderr is not None
        next(line for line in job.stderr if line.startswith("epoch 2/"))
        asked = time.monotonic()
        os.killpg(job.pid, signal.SIGUSR1)  # the script is told, too
        rest = job.stderr.read()
        assert job.wait() == 75
    assert time.monotonic() - asked < 60
    (last,) = [line for line in rest.splitlines() if line.startswith("rela: ")]
    assert last.startswith("rela: SIGUSR1: saved after step ")
    run = tmp_path / "workspace" / "runs" / "long"
    assert not (run / "manifest.json").exists()
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is not None
    assert f"step {newest[1]['step']};" in last
    assert (tmp_path / "scontrol").read_text() == "requeue 7\n"


@pytest.mark.parametrize("number", PREEMPTION_SIGNALS)
def test_a_command_that_is_not_training_makes_room_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    def work(workspace: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except Exception:
            pytest.fail("whatever stands around the work must not take it for an error")

    monkeypatch.setattr("rela.stages.workspace.status.status", work)
    before = signal.getsignal(number)
    result = run_rela("--workspace", tmp_path, "status", exit_code=75)
    assert result.stderr == (f"rela: {number.name}; run the same command again to resume\n")
    assert signal.getsignal(number) == before


def test_a_batch_job_that_fails_is_not_queued_again(tmp_path: Path, slurm: dict[str, str]):
    job = subprocess.run(
        [REPOSITORY / "examples" / "slurm.sbatch", "--epochs", "none"],
        env=slurm, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert job.returncode == 2 and "--epochs" in job.stderr
    assert not (tmp_path / "scontrol").exists()
