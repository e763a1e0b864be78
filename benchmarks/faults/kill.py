"""kill -9, then the same command again: the same artifact as if nothing had happened.

Bytes of betons, HDF5 files and targets, weights of training on the CPU, figures of evaluation; and no file,
process or shared memory left that an uninterrupted job would not leave.
"""

import dataclasses
import functools
import random
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

from benchmarks.faults import Tally
from benchmarks.faults.faulty import break_at
from benchmarks.faults.jobs import Job
from benchmarks.faults.stages import LIMIT_SECONDS, Stage, each_stage

_KILLS, _STEPS, _NUM_JOBS, _CONCURRENT = 200, 100, 4, 20
_TRY_AGAIN = 75
_TINY_TRAIN = (
    "train", "digits", "--name", "run", "--model", "timm:test_resnet", "--image-size", 32, "--epochs", 6,
    "--batch-size", 16, "--data-ratio", 0.25, "--handover", 0.5, "--checkpoint-minutes", 0,
)  # fmt: skip


def kill(trials: int, scratch: Path, only: Collection[str]) -> Iterator[Tally]:
    """At a random instant of every stage."""
    for stage in each_stage(scratch, only):
        tally = Tally(f"{stage.name}: killed at a random instant, then run again")
        draw = random.Random(stage.name)
        for _ in range(trials or _KILLS):
            tally.count(_killed(stage, draw.uniform(0, stage.undisturbed[2])))
        yield tally


def _killed(stage: Stage, seconds: float) -> str:
    shared = _shared_memory()

    def kill_it(workspace: Path) -> str:
        job = stage.start(workspace)
        job.wait(seconds)  # which kills it when the time is over
        left = job.left()
        return f"processes {left} live on" if left else ""

    problem = stage.trial(f"after {seconds:.3f} s", kill_it)
    left = _shared_memory() - shared
    return problem or (f"after {seconds:.3f} s: shared memory {left} is left" if left else "")


def _shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def resume(trials: int, scratch: Path) -> Iterator[Tally]:
    """Training killed in each of its first hundred steps; fewer trials are spread over the steps.

    Hand-over, moving averages, data ratio, schedules and random states are all in between. Every step
    saves, so the model is a tiny one.
    """
    stage = dataclasses.replace(next(each_stage(scratch, {"train"})), words=_TINY_TRAIN)
    tally = Tally("killed in one step, then run again: weights, losses and records are the same")
    count = trials or _STEPS
    for step in (1 + number * _STEPS // count for number in range(count)):
        tally.count(stage.trial(f"step {step}", functools.partial(_killed_in, stage, step)))
    yield tally


def _killed_in(stage: Stage, step: int, workspace: Path) -> str:
    def train() -> None:
        break_at("kill", 0, step)
        stage.run(workspace)

    status = Job.start(train, stage.scratch / "log").wait(LIMIT_SECONDS)
    return "" if status == -signal.SIGKILL else f"was not killed, but ended with {status}"


def concurrency(trials: int, scratch: Path, only: Collection[str]) -> Iterator[Tally]:
    """Four jobs on one key at once, one of them killed: one sound artifact, nothing waits for ever."""
    for stage in each_stage(scratch, only):
        tally = Tally(f"{stage.name}: {_NUM_JOBS} at once, one killed")
        draw = random.Random(stage.name)
        for _ in range(trials or _CONCURRENT):
            # four share two cores
            seconds = draw.uniform(0, stage.undisturbed[2] * _NUM_JOBS / 2)
            four = functools.partial(_four, stage, seconds)
            tally.count(stage.trial(f"one killed after {seconds:.3f} s", four))
        yield tally


def _four(stage: Stage, seconds: float, workspace: Path) -> str:
    first, *others = (stage.start(workspace, f"log{number}") for number in range(_NUM_JOBS))
    first.wait(seconds)
    statuses = [job.wait(LIMIT_SECONDS) for job in others]
    if all(status in (0, _TRY_AGAIN) for status in statuses):
        return ""
    return f"the others ended with {statuses}: {[job.last_line() for job in others]}"
