"""The stages as jobs, one after the other on small real images: how to start, finish and compare them."""

import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.workspaces import content_of, difference, write_digits

LIMIT_SECONDS = 120.0
_PRIOR = "random:shufflenet_v2_x0_5"
_TRAIN = (
    "train", "--name", "run", "--model", "shufflenet_v2_x0_5", "--image-size", 32, "--epochs", 3,
    "--batch-size", 64, "--data-ratio", 0.25, "--handover", 0.5, "--checkpoint-minutes", 0.005,
)  # fmt: skip
Start = Callable[[Path, Path], Job]


def command(*arguments: object) -> Start:
    """`rela ARGUMENTS` as a job."""
    return lambda workspace, log: Job.rela(workspace, *arguments, log=log)


def _targets(workspace: Path, log: Path) -> Job:
    from rela.errors import failure_of
    from rela.stages.train.targets import make_targets
    from rela.stages.workspace.workspace import Workspace

    def work() -> None:
        space = Workspace(workspace)
        (representations,) = space.representations()
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
    commands = {stage: command(*written) for stage, written in words(folder).items()}
    return {
        "convert": commands["convert"],
        "embed": commands["embed"],
        "targets": _targets,
        "train": commands["train"],
        "eval": commands["eval"],
    }


def each_stage(scratch: Path, only: Collection[str]) -> Iterator[tuple[str, Start, Path]]:
    """Name, how to start it, and the workspace before it, of each stage in `only`; in order.

    The workspace is not to be changed: the stage is finished in it when the next one is asked for.
    """
    import_everything()
    before = scratch / "before"
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir(parents=True)
    for stage, start in stages(write_digits(scratch / "digits")).items():
        if stage in only:
            yield stage, start, before
        finish(start, before, scratch)


def finish(start: Start, workspace: Path, scratch: Path) -> None:
    """Run it without any fault; RuntimeError if it fails."""
    job = start(workspace, scratch / "finish.log")
    status = job.wait(LIMIT_SECONDS)
    if status:
        raise RuntimeError(f"status {status} without any fault: {job.last_line()}")


def run_again(start: Start, workspace: Path, log: Path, expected: dict[str, str]) -> str:
    """What goes wrong when it is run again, or differs from `expected` then; empty if nothing."""
    job = start(workspace, log)
    status = job.wait(LIMIT_SECONDS)
    if status:
        return f"then status {status}: {job.last_line()}"
    return difference(content_of(workspace), expected)


def copy_of(source: Path, destination: Path) -> Path:
    """A fresh copy of a folder in place of whatever was there."""
    shutil.rmtree(destination, ignore_errors=True)
    shutil.copytree(source, destination)
    return destination
