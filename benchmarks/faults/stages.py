"""The stages as jobs, one after the other on small real images; each can be disturbed and run again."""

import functools
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.workspaces import content_of, difference, unsound_artifacts, write_digits
from rela.cli import main
from rela.errors import failure_of

LIMIT_SECONDS = 120.0
_PRIOR = ("--prior", "random:shufflenet_v2_x0_5", "--batch-size", 32)
_WORDS: dict[str, tuple[object, ...]] = {
    "convert": ("convert", "--val-fraction", 0.2, "--workers", 2),
    # rows that "embed" takes
    "convert some": ("convert", "--val-fraction", 0.2, "--name", "some", "--max-images", 800),
    "embed some": ("embed", "some", *_PRIOR),
    "embed": ("embed", "digits", *_PRIOR),
    "maps": ("embed", "digits", *_PRIOR, "--dense", 1),
    "targets": (),  # no command of its own
    "train": (
        "train", "digits", "--name", "run", "--model", "shufflenet_v2_x0_5", "--image-size", 32,
        "--epochs", 3, "--batch-size", 64, "--data-ratio", 0.25, "--handover", 0.5,
        "--checkpoint-minutes", 0.005,
    ),
    "eval": ("eval", "run", "--protocol", "knn20", "--protocol", "linear-reference"),
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A stage with the workspace `before` it, which is not to be changed."""

    name: str
    words: tuple[object, ...]  # after `rela`
    before: Path
    scratch: Path

    def run(self, workspace: Path) -> None:
        """The stage, in this process; ends in SystemExit."""
        if not self.words:
            _make_targets(workspace)
        main(["--workspace", str(workspace), *map(str, self.words)])

    def start(self, workspace: Path, log: str = "log") -> Job:
        """The stage, in a process of its own."""
        return Job.start(lambda: self.run(workspace), self.scratch / log)

    @functools.cached_property
    def undisturbed(self) -> tuple[Path, dict[str, str], float]:
        """The workspace after it, what that holds, and the seconds it took; RuntimeError if it fails."""
        workspace = copy_of(self.before, self.scratch / f"after-{self.name}")
        begun = time.perf_counter()
        job = self.start(workspace)
        if job.wait(LIMIT_SECONDS):
            raise RuntimeError(f"status {job.status} without any fault: {job.last_line()}")
        return workspace, content_of(workspace), time.perf_counter() - begun

    def misfit(self, workspace: Path) -> str:
        """What is not as the undisturbed job leaves it, in words; empty if nothing."""
        return difference(content_of(workspace), self.undisturbed[1])

    def trial(
        self, what: str, disturb: Callable[[Path], str], workspace: Path | None = None
    ) -> str:
        """Disturb a job in a fresh workspace, then run it again: what goes wrong, or nothing.

        `disturb` starts a job and says what goes wrong with that one. Nothing that is not whole may pass
        for complete in between, and in the end all is as the undisturbed job leaves it.
        """
        workspace = copy_of(self.before, workspace or self.scratch / "disturbed")
        problem = disturb(workspace) or unsound_artifacts(workspace)
        if not problem:
            again = self.start(workspace)
            if again.wait(LIMIT_SECONDS):
                problem = f"then status {again.status}: {again.last_line()}"
        problem = problem or self.misfit(workspace)
        return f"{what}: {problem}" if problem else ""


def each_stage(scratch: Path, only: Collection[str]) -> Iterator[Stage]:
    """Those in `only`, in the order in which they build on each other; it ends with the last of them.

    Of nothing, all are run. Each leaves its workspace.
    """
    import_everything()
    before = scratch / "before-all"
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir(parents=True)
    digits = write_digits(scratch / "digits")
    last = [name for name in _WORDS if name in only][-1:]
    for name, words in _WORDS.items():
        stage = Stage(name, (*words, digits) if "convert" in words else words, before, scratch)
        if name in only:
            yield stage
        if [name] == last:
            return
        before = stage.undisturbed[0]


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
