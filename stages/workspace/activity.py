"""Running jobs, read from the files of a workspace: also those of other terminals and machines."""

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from msgspec import Struct

from rela.pipeline.locks import holder
from rela.pipeline.owner import printable
from rela.pipeline.parts import PartStore
from rela.result import Result, Table
from rela.stages.workspace.representations import about_parts
from rela.stages.workspace.run import LOCK_FILE, read_config
from rela.stages.workspace.schema import Float, Int, as_fields, as_type, load_json
from rela.stages.workspace.workspace import Workspace
from rela.training.progress import Snapshot, clock, format_line
from rela.training.run_directory import CHECKPOINTS_DIR, PROGRESS_FILE

_SILENT_SECONDS = 30.0
_ROW_COLUMNS = 100  # of a line of progress in a table


class _Reporter(Struct, frozen=True):
    """The entries of a progress file beside those of `Snapshot`."""

    host: str
    pid: Int
    updated: Float


@dataclass(frozen=True)
class RunUnderWay:
    """A training whose lock is held by `held_by`; `now` is None until its first steps are done.

    `silent_seconds`: since its last progress report.
    """

    name: str
    epochs: int
    held_by: str
    now: dict[str, Any] | None
    silent_seconds: float | None
    checkpoint_age_seconds: float | None


@dataclass(frozen=True)
class EmbedUnderWay:
    """Representations that `workers` compute; rates in images per second, over all workers."""

    directory: str
    what: str
    num_parts_done: int
    num_parts: int | None
    workers: list[str]
    images_per_second: float | None
    eta_seconds: float | None

    @property
    def done(self) -> str:
        """Progress in words."""
        return f"{self.num_parts_done} of {self.num_parts or '?'} parts"

    @property
    def by(self) -> str:
        """All workers, in words."""
        return ", ".join(self.workers)


@dataclass(frozen=True, repr=False)
class UnderWay(Result):
    """All running jobs of a workspace."""

    workspace: str
    runs: list[RunUnderWay]
    embeds: list[EmbedUnderWay]

    def shown(self) -> dict[str, Any]:
        """How many jobs run."""
        return {"workspace": self.workspace, "runs": len(self.runs), "embeddings": len(self.embeds)}

    def tables(self) -> dict[str, Table]:
        """A row for each job."""
        rows = [[f"run {run.name}", _where(run, _ROW_COLUMNS), _held(run)] for run in self.runs]
        rows += [[embed.what, _parts(embed), embed.by] for embed in self.embeds]
        return {"running": (("what", "progress", "by"), rows)}


def under_way(workspace: Workspace) -> UnderWay:
    """Find running jobs by their locks, leases and progress files."""
    runs = [_run(path) for path in workspace.unfinished_runs()]
    embeds = [_embed(path) for path in workspace.unfinished_parts()]
    return UnderWay(
        str(workspace.root),
        [run for run in runs if run is not None],
        [embed for embed in embeds if embed.workers],
    )


def format_under_way(found: UnderWay, columns: int = 80) -> str:
    """A few lines per job, at most `columns` wide."""
    lines = []
    for run in found.runs:
        lines += ["", f"run {run.name}", f"  {_where(run, columns - 2)}", f"  {_held(run)}"]
    for embed in found.embeds:
        lines += ["", embed.what, f"  {_parts(embed)}", f"  {embed.by}"]
    if not lines:
        lines = ["", "no running jobs"]
    lines = [f"workspace {found.workspace}", *lines]
    return "\n".join(printable(line)[:columns] for line in lines)


def _run(path: Path) -> RunUnderWay | None:
    held_by = holder(path / LOCK_FILE)
    if held_by is None:
        return None
    now = _progress(path / PROGRESS_FILE)
    checkpoints = (path / CHECKPOINTS_DIR).glob("step-*.json")
    newest = max((_modified(file) for file in checkpoints), default=0.0)
    return RunUnderWay(
        name=path.name,
        epochs=read_config(path).settings.epochs,
        held_by=held_by,
        now=now,
        silent_seconds=None if now is None else max(0.0, time.time() - now["updated"]),
        checkpoint_age_seconds=max(0.0, time.time() - newest) if newest else None,
    )


def _progress(path: Path) -> dict[str, Any] | None:
    try:
        found = load_json(path, dict[str, Any])
        as_fields(found, Snapshot)
        as_type(found, _Reporter)
        return found
    except (OSError, ValueError):
        return None


def _embed(path: Path) -> EmbedUnderWay:
    what, num_parts, num_images, _ = about_parts(path)
    store = PartStore(path, num_parts or 0)
    workers, done, rate, eta = store.workers(), len(store.finished()), None, None
    seconds = store.recent_seconds()
    if workers and seconds and num_parts:
        rate = num_images and len(workers) * num_images / num_parts / seconds
        eta = max(0, num_parts - done) * seconds / len(workers)
    return EmbedUnderWay(path.name, what, done, num_parts, workers, rate, eta)


def _where(run: RunUnderWay, columns: int) -> str:
    if run.now is None:
        return f"starting; {run.epochs} epochs"
    snapshot = Snapshot(**{f.name: run.now[f.name] for f in fields(Snapshot)})
    return format_line(snapshot, columns)


def _held(run: RunUnderWay) -> str:
    words = [run.held_by]
    if run.checkpoint_age_seconds is not None:
        words.append(f"last checkpoint {clock(run.checkpoint_age_seconds)} ago")
    if run.silent_seconds is not None and run.silent_seconds > _SILENT_SECONDS:
        words.append(f"no progress for {clock(run.silent_seconds)}")
    return ", ".join(words)


def _parts(embed: EmbedUnderWay) -> str:
    words = [embed.done]
    if embed.images_per_second is not None:
        words.append(f"{embed.images_per_second:,.0f} img/s")
    if embed.eta_seconds is not None:
        words.append(f"ETA {clock(embed.eta_seconds)}")
    return "  ".join(words)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
