"""kill -9 at a random instant, then the same command again: the same artifact as if nothing had happened.

Bytes of betons, HDF5 files and targets, weights of training on the CPU, figures of evaluation; and no file,
process or shared memory left that an uninterrupted job would not leave. Nothing that is not whole may
pass for complete in between.
"""

import random
import shutil
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.tally import Tally
from benchmarks.faults.workspaces import (
    content_of,
    difference,
    unsound_artifacts,
    write_digits,
)

_TRIALS = 200
_LIMIT_SECONDS = 120.0
_PRIOR = "random:shufflenet_v2_x0_5"
_TRAIN = (
    "train", "--name", "run", "--model", "shufflenet_v2_x0_5", "--image-size", 32, "--epochs", 3,
    "--batch-size", 64, "--data-ratio", 0.25, "--handover", 0.5, "--checkpoint-minutes", 0.005,
)  # fmt: skip
Start = Callable[[Path, Path], Job]


def _command(*arguments: object) -> Start:
    return lambda workspace, log: Job.rela(workspace, *arguments, log=log)


def _targets(workspace: Path, log: Path) -> Job:
    from pipeline.artifact import find_artifacts
    from stages.failures import failure_of
    from stages.targets import make_targets
    from stages.workspace import Workspace

    def work() -> None:
        space = Workspace(workspace)
        (representations,) = find_artifacts(space.representations_dir)
        try:
            make_targets(space, representations, 64)
        except Exception as error:  # told as the command line does
            failure = failure_of(error)
            if failure is None:
                raise
            print(f"rela: {failure[0]}")
            raise SystemExit(failure[1]) from error

    return Job.start(work, log)


def words(folder: Path) -> dict[str, tuple[object, ...]]:
    """What to write after `rela` for each stage that is a command."""
    return {
        "convert": ("convert", folder, "--val-fraction", 0.2, "--workers", 2),
        "embed": ("embed", "--prior", _PRIOR, "--batch-size", 32),
        "train": _TRAIN,
        "eval": ("eval", "run", "--protocol", "knn20", "--protocol", "linear-reference"),
    }


def stages(folder: Path) -> dict[str, Start]:
    """How to start each stage, in the order in which they build on each other."""
    commands = {stage: _command(*written) for stage, written in words(folder).items()}
    return {
        "convert": commands["convert"],
        "embed": commands["embed"],
        "targets": _targets,
        "train": commands["train"],
        "eval": commands["eval"],
    }


def run(trials: int, scratch: Path, only: Collection[str]) -> list[Tally]:
    import_everything()
    folder = write_digits(scratch / "digits")
    before = scratch / "before"
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir(parents=True)
    tallies = []
    for stage, start in stages(folder).items():
        if stage not in only:
            _finish(start, before, scratch)
            continue
        tally = Tally(f"{stage}: killed at a random instant, then run again")
        expected, seconds = _uninterrupted(start, before, scratch)
        draw = random.Random(stage)
        for _ in range(trials or _TRIALS):
            tally.count(_killed(start, before, scratch, draw.uniform(0, seconds), expected))
        tallies.append(tally)
        print(f"{tally.lines()[0]} ({seconds:.1f} s uninterrupted)", file=sys.stderr, flush=True)
        _finish(start, before, scratch)
    return tallies


def _uninterrupted(start: Start, before: Path, scratch: Path) -> tuple[dict[str, str], float]:
    """What the stage leaves, and its seconds."""
    workspace = copy_of(before, scratch / "uninterrupted")
    begun = time.perf_counter()
    _finish(start, workspace, scratch)
    return content_of(workspace), time.perf_counter() - begun


def _finish(start: Start, workspace: Path, scratch: Path) -> None:
    job = start(workspace, scratch / "finish.log")
    status = job.wait(_LIMIT_SECONDS)
    if status:
        raise RuntimeError(f"status {status} without any fault: {job.last_line()}")


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
    again = start(workspace, log)
    status = again.wait(_LIMIT_SECONDS)
    if status:
        return f"{when}: then status {status}: {again.last_line()}"
    if left := _shared_memory() - shared:
        return f"{when}: shared memory {left} is left"
    problem = difference(content_of(workspace), expected)
    return f"{when}: {problem}" if problem else ""


def copy_of(source: Path, destination: Path) -> Path:
    shutil.rmtree(destination, ignore_errors=True)
    shutil.copytree(source, destination)
    return destination


def _shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}
