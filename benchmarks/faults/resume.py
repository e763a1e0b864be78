"""Training killed in each of its first hundred steps: goes on to the very weights and losses.

Hand-over, moving averages, data ratio, schedules and random states are all in between. Every step saves, so
the model is a tiny one. Fewer trials are spread over the steps.
"""

import functools
import itertools
import os
import signal
from pathlib import Path

from benchmarks.faults.jobs import Job
from benchmarks.faults.staged import LIMIT_SECONDS, command, copy_of, each_stage, finish, run_again
from benchmarks.faults.tally import Tally
from benchmarks.faults.workspaces import content_of
from rela.data.loader import ViewLoader

_STEPS = 100
_TRAIN = (
    "train", "--name", "run", "--model", "timm:test_resnet", "--image-size", 32, "--epochs", 6,
    "--batch-size", 16, "--data-ratio", 0.25, "--handover", 0.5, "--checkpoint-minutes", 0,
)  # fmt: skip


def run(trials: int, scratch: Path) -> list[Tally]:
    _, _, before = next(each_stage(scratch, {"train"}))
    train = command(*_TRAIN)
    whole = copy_of(before, scratch / "whole")
    finish(train, whole, scratch)
    expected = content_of(whole)
    tally = Tally("killed in one step, then run again: weights, losses and records are the same")
    count, log = trials or _STEPS, scratch / "log"
    for step in (1 + number * _STEPS // count for number in range(count)):
        workspace = copy_of(before, scratch / "killed")
        Job.start(functools.partial(_train_until, step, workspace), log).wait(LIMIT_SECONDS)
        problem = run_again(train, workspace, log, expected)
        tally.count(f"step {step}: {problem}" if problem else "")
    return [tally]


def _train_until(step: int, workspace: Path) -> None:
    """Train, and die while the batch of `step` is made."""
    from rela.cli import main

    original, calls = ViewLoader._result, itertools.count(1)

    def result(self: ViewLoader, *arguments: object) -> object:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *arguments)  # type: ignore[arg-type]

    ViewLoader._result = result  # type: ignore[assignment,method-assign]
    main(["--workspace", str(workspace), *map(str, _TRAIN)])
