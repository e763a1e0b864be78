"""Data sets, representations and runs of a workspace; what is running and what can be resumed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.pipeline.files import directory_bytes
from rela.pipeline.parts import PartStore
from rela.priors.names import shown_names
from rela.priors.prior import Combination
from rela.result import Result, Table
from rela.stages.display import format_table, human_bytes
from rela.stages.workspace.activity import RunUnderWay, under_way
from rela.stages.workspace.dataset import Coverage
from rela.stages.workspace.representations import Representations, about_parts, map_words
from rela.stages.workspace.run import Run, begun_from, unfinished_run
from rela.stages.workspace.workspace import Workspace
from rela.training.progress import clock


@dataclass(frozen=True, repr=False)
class Status(Result):
    """Rows per kind of thing, ready for tables or JSON."""

    workspace: str
    datasets: list[dict[str, Any]]
    representations: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    running: list[dict[str, Any]]
    resumable: list[dict[str, Any]]

    def shown(self) -> dict[str, Any]:
        """How much of each kind there is."""
        return {
            "workspace": self.workspace,
            "data sets": len(self.datasets),
            "representations": len(self.representations),
            "runs": len(self.runs),
            "running": len(self.running) or None,
            "resumable": len(self.resumable) or None,
        }

    def tables(self) -> dict[str, Table]:
        """What there is, by kind."""

        def percent(row: dict[str, Any], measure: str) -> str | None:
            if row[measure] is None:
                return None
            covered, classes = row["coverage"] or (0, 0)
            of_few = f", {covered} of {classes} classes" if covered < classes else ""
            return f"{100 * row[measure]:.1f} %{of_few}"

        return {
            "data sets": (
                ["name", "classes", "train", "val", "size"],
                [
                    [r["name"], r["classes"], r.get("train"), r.get("val"), human_bytes(r["num_bytes"])]
                    for r in self.datasets
                ],
            ),
            "representations": (
                ["prior", "input", "crops", "data set", "split", "rows", "width", "type", "size"],
                [
                    [
                        r["prior"], r["input_pixels"], r["crops"], r["dataset"], r["split"], r["rows"],
                        r["width"], r["dtype"], human_bytes(r["num_bytes"]),
                    ]
                    for r in self.representations
                ],
            ),
            "runs": (
                [
                    *("name", "data set", "model", "prior", "epochs", "hand-over step", "seconds"),
                    *("20-NN", "linear"),
                ],
                [
                    [
                        r["name"], r["dataset"], _model(r), r["prior"],
                        r["epochs"] if r["epochs_done"] is None else f"{r['epochs_done']} of {r['epochs']}",
                        _handover(r), r["total_seconds"], percent(r, "knn20"), percent(r, "linear"),
                    ]
                    for r in self.runs
                ],
            ),
            "running": (
                ["what", "done", "ETA", "by"],
                [
                    [r["what"], r["done"], _clock(r["eta_seconds"]), r["by"]]
                    for r in self.running
                ],
            ),
            "resumable": (
                ["what", "done", "resume with"],
                [[r["what"], r["done"], r["command"]] for r in self.resumable],
            ),
        }  # fmt: skip


def status(workspace: Workspace) -> Status:
    """Read every manifest of the workspace; a job is either running or resumable."""
    now = under_way(workspace)
    datasets = workspace.datasets()
    coverages = {dataset.fingerprint: dataset.coverage() for dataset in datasets}
    busy = {*(run.name for run in now.runs), *(embed.directory for embed in now.embeds)}
    cached = workspace.representations_and_maps()
    names = shown_names(each.prior for each in cached)
    return Status(
        workspace=str(workspace.root),
        datasets=[
            {
                "name": dataset.name,
                "classes": len(dataset.content.class_names),
                **{name: split.num_images for name, split in sorted(dataset.splits.items())},
                "num_bytes": directory_bytes(dataset.path),
            }
            for dataset in datasets
        ],
        representations=[
            _representations_row(each, name) for each, name in zip(cached, names, strict=True)
        ],
        runs=[_run_row(run, coverages) for run in workspace.runs()],
        running=[
            *(_running_row(run) for run in now.runs),
            *(
                {"what": e.what, "done": e.done, "eta_seconds": e.eta_seconds, "by": e.by}
                for e in now.embeds
            ),
        ],
        resumable=[
            *(_unfinished_run_row(p) for p in workspace.unfinished_runs() if p.name not in busy),
            *(_unfinished_parts_row(p) for p in workspace.unfinished_parts() if p.name not in busy),
        ],
    )


def format_status(found: Status) -> str:
    """Tables for people."""
    if not (
        found.datasets or found.representations or found.runs or found.running or found.resumable
    ):
        return f"nothing in {found.workspace} yet; begin with `rela convert path/to/images`"

    shown = [
        f"{title}\n{format_table(*table)}" for title, table in found.tables().items() if table[1]
    ]
    return "\n\n".join([f"workspace {found.workspace}", *shown])


def _clock(seconds: float | None) -> str | None:
    return None if seconds is None else clock(seconds)


def _handover(run: dict[str, Any]) -> Any:
    """The step; "never" if stage 1 did not end, None without stage 1."""
    never = run["handover_step"] is None and run["prior"] != "none"
    return "never" if never else run["handover_step"]


def _representations_row(found: Representations, name: str) -> dict[str, Any]:
    return {
        "prior": name if not found.content.map else f"{name} ({map_words(found.content.map)} maps)",
        "dataset": found.content.dataset,
        "split": found.content.split,
        "input_pixels": None if isinstance(found.prior, Combination) else found.prior.image_size,
        "crops": found.content.crops,
        "dtype": found.dtype,
        "rows": found.content.shape[0],
        "width": found.content.shape[1],
        "num_bytes": directory_bytes(found.path),
    }


def _model(row: dict[str, Any]) -> str:
    return f"{row['model']}, from {row['init']}" if row["init"] else str(row["model"])


def _run_row(run: Run, coverages: dict[str, Coverage | None]) -> dict[str, Any]:
    coverage = coverages.get(run.dataset_fingerprint)
    seconds, accuracies = run.total_seconds, run.evaluation.accuracies
    knn20, linear = map(accuracies.get, ("knn20", "linear"))
    return {
        "name": run.name,
        "dataset": run.content.dataset,
        "model": run.model,
        "init": begun_from(run.settings),
        "prior": run.content.prior or "none",
        "epochs": run.settings.epochs,
        "epochs_done": run.content.epochs_done,
        "handover_step": run.content.handover_step,
        "total_seconds": None if seconds is None else round(seconds, 1),
        "knn20": knn20 and knn20.get("top1"),
        "linear": linear and linear.get("top1"),
        "coverage": coverage and [coverage.num_classes, coverage.of_classes],
    }


def _running_row(run: RunUnderWay) -> dict[str, Any]:
    now = run.now or {"epoch": 0, "eta_seconds": None}
    return {
        "what": f"run {run.name}",
        "done": f"{now['epoch']} of {run.epochs} epochs",
        "eta_seconds": now["eta_seconds"],
        "by": run.held_by,
    }


def _unfinished_run_row(path: Path) -> dict[str, Any]:
    run = unfinished_run(path)
    return {"what": f"run {run.name}", "done": run.done, "command": run.command}


def _unfinished_parts_row(path: Path) -> dict[str, Any]:
    what, num_parts, _, verb = about_parts(path)
    done = len(PartStore(path, num_parts or 0).finished())
    return {
        "what": what,
        "done": f"{done} parts" if num_parts is None else f"{done} of {num_parts} parts",
        "command": f"the same `rela {verb}` again",
    }
