"""Four jobs on one key at once, one of them killed: one sound artifact, and nobody waits for ever."""

import random
import sys
import time
from collections.abc import Collection
from pathlib import Path

from benchmarks.faults.staged import LIMIT_SECONDS, Start, copy_of, each_stage, finish, run_again
from benchmarks.faults.tally import Tally
from benchmarks.faults.workspaces import content_of, unsound_artifacts

_TRIALS = {"convert": 30, "embed": 100, "train": 20}
_NUM_JOBS = 4
_TRY_AGAIN = 75


def run(trials: int, scratch: Path, only: Collection[str]) -> list[Tally]:
    tallies = []
    for stage, start, before in each_stage(scratch, set(_TRIALS) & set(only)):
        tally = Tally(f"{stage}: {_NUM_JOBS} at once, one killed")
        alone = copy_of(before, scratch / "alone")
        begun = time.perf_counter()
        finish(start, alone, scratch)
        seconds, expected = time.perf_counter() - begun, content_of(alone)
        draw = random.Random(stage)
        for _ in range(trials or _TRIALS[stage]):
            # four share two cores
            when = draw.uniform(0, seconds * _NUM_JOBS / 2)
            tally.count(_trial(start, before, scratch, when, expected))
        tallies.append(tally)
        print(tally.lines()[0], file=sys.stderr, flush=True)
    return tallies


def _trial(
    start: Start, before: Path, scratch: Path, seconds: float, expected: dict[str, str]
) -> str:
    """What went wrong, or nothing."""
    workspace = copy_of(before, scratch / "shared")
    logs = [scratch / f"job{number}.log" for number in range(_NUM_JOBS)]
    for log in logs:
        log.unlink(missing_ok=True)
    jobs = [start(workspace, log) for log in logs]
    when = f"one killed after {seconds:.3f} s"
    jobs[0].wait(seconds)
    statuses = [job.wait(LIMIT_SECONDS) for job in jobs[1:]]
    if any(status not in (0, _TRY_AGAIN) for status in statuses):
        lines = [job.last_line() for job in jobs[1:]]
        return f"{when}: the others ended with {statuses}: {lines}"
    if problem := unsound_artifacts(workspace):
        return f"{when}: {problem}"
    # what was killed is done by whoever comes next; what was finished is found
    problem = run_again(start, workspace, logs[0], expected)
    return f"{when}: {problem}" if problem else ""
