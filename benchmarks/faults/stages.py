"""The stages as jobs on small real images; each can be disturbed and run again.

As a program, `python -m benchmarks.faults.stages SCRATCH NAME WORKSPACE`, it runs one of them.
"""

import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.commands import COMMANDS
from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.workspaces import (
    content_of,
    difference,
    timeless,
    unsound_artifacts,
    write_digits,
    write_shards,
)
from rela.cli import main
from rela.errors import failure_of

LIMIT_SECONDS = 120.0
OUT = "out"  # of a workspace: takes what is written for other programs


@dataclass(frozen=True)
class Stage:
    """A stage and the one that it comes after, if any; what they make lies in `scratch`."""

    name: str
    words: tuple[str, ...]  # after `rela`
    previous: "Stage | None"
    scratch: Path

    @functools.cached_property
    def before(self) -> Path:
        """The workspace that it begins with, which is not to be changed."""
        if self.previous is not None:
            return self.previous.undisturbed[0]
        empty = self.scratch / "before-all"
        (empty / OUT).mkdir(parents=True, exist_ok=True)
        return empty

    def run(self, workspace: Path) -> None:
        """The stage, in this process; ends in SystemExit."""
        if not self.words:
            _make_targets(workspace)
        if any(word.startswith(("module:", "plugin:")) for word in self.words):
            from benchmarks.faults.own_networks import make_known

            make_known(self.scratch / "packages")
        places = {
            "digits": self.scratch / "digits",
            "shards": f"file://{self.scratch}/shards/*.tar",
            "out": workspace / OUT,
        }
        main(["--workspace", str(workspace), *(word.format(**places) for word in self.words)])

    def start(self, workspace: Path, log: str = "log") -> Job:
        """The stage, in a process of its own."""
        return Job.start(lambda: self.run(workspace), self.scratch / log)

    @functools.cached_property
    def undisturbed(self) -> tuple[Path, dict[str, str], float, str]:
        """The workspace after it, what that holds, the seconds it took and its answer.

        Raises RuntimeError if it fails.
        """
        workspace = copy_of(self.before, self.scratch / f"after-{self.name}")
        begun = time.perf_counter()
        job = self.start(workspace)
        if job.wait(LIMIT_SECONDS):
            raise RuntimeError(
                f"{self.name}: status {job.status} without any fault: {job.last_line()}"
            )
        seconds = time.perf_counter() - begun
        return workspace, content_of(workspace), seconds, self.answer(job, workspace)

    def answer(self, job: Job, workspace: Path) -> str:
        """What a job with --json said, without times and places."""
        if "--json" not in self.words:
            return ""
        said = job.last_line().replace(str(workspace), "WORKSPACE")
        return json.dumps(timeless(json.loads(said)))

    def misfit(self, workspace: Path) -> str:
        """What is not as the undisturbed job leaves it, in words; empty if nothing."""
        return difference(content_of(workspace), self.undisturbed[1])

    def half_made(self, workspace: Path) -> str:
        """What passes for complete and is not, in words; empty if there is nothing of the kind.

        What is written for other programs is to be absent, as it was before or as it will be.
        """
        before, after = (
            {path.name: content_of(path) for path in (place / OUT).iterdir()}
            for place in (self.before, self.undisturbed[0])
        )
        for path in (workspace / OUT).iterdir():
            if not path.name.startswith("."):
                found = content_of(path)
                if found not in (before.get(path.name), after.get(path.name)):
                    return f"{path.name} is neither as before nor as after"
        return unsound_artifacts(workspace)

    def trial(
        self, what: str, disturb: Callable[[Path], str], workspace: Path | None = None
    ) -> str:
        """Disturb a job in a fresh workspace, then run it again: what goes wrong, or nothing.

        `disturb` starts a job and says what goes wrong with that one. Nothing that is not whole may pass
        for complete in between, and in the end all is as the undisturbed job leaves it.
        """
        workspace = copy_of(self.before, workspace or self.scratch / "disturbed")
        problem = disturb(workspace) or self.half_made(workspace)
        if not problem:
            again = self.start(workspace)
            if again.wait(LIMIT_SECONDS):
                problem = f"then status {again.status}: {again.last_line()}"
            elif self.answer(again, workspace) != self.undisturbed[3]:
                problem = "then another answer"
        problem = problem or self.misfit(workspace)
        return f"{what}: {problem}" if problem else ""


@functools.cache
def all_stages(scratch: Path) -> dict[str, Stage]:
    """Every stage by its name; those before it are run once, when they are asked for."""
    import_everything()
    write_shards(scratch / "shards", write_digits(scratch / "digits"))
    stages: dict[str, Stage] = {}
    for name, (previous, words) in COMMANDS.items():
        stages[name] = Stage(name, words, stages.get(previous), scratch)
    return stages


def each_stage(scratch: Path, only: Collection[str]) -> Iterator[Stage]:
    """Those in `only`, in the order of the commands."""
    return (stage for name, stage in all_stages(scratch).items() if name in only)


def copy_of(source: Path, destination: Path) -> Path:
    """A fresh copy of a folder in place of whatever was there."""
    shutil.rmtree(destination, ignore_errors=True)
    shutil.copytree(source, destination)
    return destination


def _make_targets(workspace: Path) -> None:
    from rela.stages.train.targets import make_targets
    from rela.stages.workspace.workspace import Workspace

    space = Workspace(workspace)
    (representations,) = space.representations(space.dataset("digits").images_sha256())
    try:
        make_targets(space, representations, 64)
    except Exception as error:  # told as the command line does
        failure = failure_of(error)
        if failure is None:
            raise
        print(f"rela: {failure[0]}")
        raise SystemExit(failure[1]) from error
    raise SystemExit(0)


if __name__ == "__main__":
    scratch, name, workspace = sys.argv[1:]
    Stage(name, COMMANDS[name][1], None, Path(scratch)).run(Path(workspace))
