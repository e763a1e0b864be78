"""Training killed in each of its first hundred steps: goes on to the very weights and losses.

Hand-over, moving averages, data ratio, schedules and random states are all in between. Every step saves, so
the model is a tiny one. Fewer trials are spread over the steps.
"""

import functools
import itertools
import os
import shutil
import signal
from pathlib import Path

from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.kill import copy_of, stages
from benchmarks.faults.tally import Tally
from benchmarks.faults.workspaces import content_of, difference, write_digits
from rela.loader import ViewLoader

_STEPS = 100
_LIMIT_SECONDS = 300.0
_TRAIN = (
    "train", "--name", "run", "--model", "timm:test_resnet", "--image-size", 32, "--epochs", 6,
    "--batch-size", 16, "--data-ratio", 0.25, "--handover", 0.5, "--checkpoint-minutes", 0,
)  # fmt: skip


def run(trials: int, scratch: Path) -> list[Tally]:
    import_everything()
    before = scratch / "before"
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir(parents=True)
    for stage, start in stages(write_digits(scratch / "digits")).items():
        if stage in ("convert", "embed", "targets"):
            start(before, scratch / "log").wait(_LIMIT_SECONDS)
    whole = copy_of(before, scratch / "whole")
    job = Job.rela(whole, *_TRAIN, log=scratch / "log")
    if job.wait(_LIMIT_SECONDS):
        raise RuntimeError(job.last_line())
    expected = content_of(whole)
    tally = Tally("killed in one step, then run again: weights, losses and records are the same")
    count = trials or _STEPS
    for step in (1 + number * _STEPS // count for number in range(count)):
        workspace = copy_of(before, scratch / "killed")
        work = functools.partial(_train_until, step, workspace)
        Job.start(work, scratch / "log").wait(_LIMIT_SECONDS)
        again = Job.rela(workspace, *_TRAIN, log=scratch / "log")
        status = again.wait(_LIMIT_SECONDS)
        problem = f"then status {status}: {again.last_line()}" if status else ""
        problem = problem or difference(content_of(workspace), expected)
        tally.count(f"step {step}: {problem}" if problem else "")
    return [tally]


def _train_until(step: int, workspace: Path) -> None:
    """Train, and die while the batch of `step` is made."""
    from cli import main

    original, calls = ViewLoader._result, itertools.count(1)

    def result(self: ViewLoader, *arguments: object) -> object:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *arguments)  # type: ignore[arg-type]

    ViewLoader._result = result  # type: ignore[assignment,method-assign]
    main(["--workspace", str(workspace), *map(str, _TRAIN)])
