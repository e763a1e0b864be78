"""kill -9 at a random instant, then the same command again: the same artifact as if nothing had happened.

Bytes of betons, HDF5 files and targets, weights of training on the CPU, figures of evaluation; and no file,
process or shared memory left that an uninterrupted job would not leave. Nothing that is not whole may
pass for complete in between.
"""

import random
import sys
import time
from collections.abc import Collection
from pathlib import Path

from benchmarks.faults.staged import Start, copy_of, each_stage, finish, run_again
from benchmarks.faults.tally import Tally
from benchmarks.faults.workspaces import content_of, unsound_artifacts

_TRIALS = 200


def run(trials: int, scratch: Path, only: Collection[str]) -> list[Tally]:
    tallies = []
    for stage, start, before in each_stage(scratch, only):
        tally = Tally(f"{stage}: killed at a random instant, then run again")
        expected, seconds = _uninterrupted(start, before, scratch)
        draw = random.Random(stage)
        for _ in range(trials or _TRIALS):
            tally.count(_killed(start, before, scratch, draw.uniform(0, seconds), expected))
        tallies.append(tally)
        print(f"{tally.lines()[0]} ({seconds:.1f} s uninterrupted)", file=sys.stderr, flush=True)
    return tallies


def _uninterrupted(start: Start, before: Path, scratch: Path) -> tuple[dict[str, str], float]:
    """What the stage leaves, and its seconds."""
    workspace = copy_of(before, scratch / "uninterrupted")
    begun = time.perf_counter()
    finish(start, workspace, scratch)
    return content_of(workspace), time.perf_counter() - begun


def _killed(
    start: Start, before: Path, scratch: Path, seconds: float, expected: dict[str, str]
) -> str:
    """One trial; what went wrong, or nothing."""
    workspace, log = copy_of(before, scratch / "killed"), scratch / "killed.log"
    log.unlink(missing_ok=True)
    shared = _shared_memory()
    when = f"after {seconds:.3f} s"
    job = start(workspace, log)
    job.wait(seconds)  # which kills it when the time is over
    if alive := job.left_behind():
        return f"{when}: processes {alive} live on"
    if problem := unsound_artifacts(workspace):
        return f"{when}: {problem}"
    problem = run_again(start, workspace, log, expected)
    if not problem and (left := _shared_memory() - shared):
        problem = f"shared memory {left} is left"
    return f"{when}: {problem}" if problem else ""


def _shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}
