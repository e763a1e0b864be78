"""Four jobs on one key at once, one of them killed: one sound artifact, and nobody waits for ever."""

import random
import shutil
import sys
import time
from collections.abc import Collection
from pathlib import Path

from benchmarks.faults.jobs import import_everything
from benchmarks.faults.kill import Start, copy_of, stages
from benchmarks.faults.tally import Tally
from benchmarks.faults.workspaces import (
    content_of,
    difference,
    unsound_artifacts,
    write_digits,
)

_TRIALS = {"convert": 30, "embed": 100, "train": 20}
_NUM_JOBS = 4
_LIMIT_SECONDS = 120.0
_TRY_AGAIN = 75


def run(trials: int, scratch: Path, only: Collection[str]) -> list[Tally]:
    import_everything()
    folder = write_digits(scratch / "digits")
    before = scratch / "before"
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir(parents=True)
    tallies = []
    for stage, start in stages(folder).items():
        if stage in _TRIALS and stage in only:
            tally = Tally(f"{stage}: {_NUM_JOBS} at once, one killed")
            alone = copy_of(before, scratch / "alone")
            begun = time.perf_counter()
            start(alone, scratch / "alone.log").wait(_LIMIT_SECONDS)
            seconds = time.perf_counter() - begun
            draw = random.Random(stage)
            for _ in range(trials or _TRIALS[stage]):
                # four share two cores
                when = draw.uniform(0, seconds * _NUM_JOBS / 2)
                tally.count(_trial(start, before, scratch, when, content_of(alone)))
            tallies.append(tally)
            print(tally.lines()[0], file=sys.stderr, flush=True)
        start(before, scratch / "before.log").wait(_LIMIT_SECONDS)
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
    statuses = [job.wait(_LIMIT_SECONDS) for job in jobs[1:]]
    if any(status not in (0, _TRY_AGAIN) for status in statuses):
        lines = [job.last_line() for job in jobs[1:]]
        return f"{when}: the others ended with {statuses}: {lines}"
    if problem := unsound_artifacts(workspace):
        return f"{when}: {problem}"
    # what was killed is done by whoever comes next; what was finished is found
    job = start(workspace, logs[0])
    status = job.wait(_LIMIT_SECONDS)
    if status:
        return f"{when}: then status {status}: {job.last_line()}"
    problem = difference(content_of(workspace), expected)
    return f"{when}: {problem}" if problem else ""
