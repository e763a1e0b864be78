"""Finished runs → one page: what the prior saved, the course of training, the features."""

import base64
import contextlib
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, RelaError, UnavailableError, require
from rela.evaluation.protocols import DEFAULT_PROTOCOLS
from rela.options import part_of
from rela.pipeline import Say
from rela.pipeline.errors import CorruptArtifactError
from rela.pipeline.files import read_regular
from rela.pipeline.fingerprint import fingerprint
from rela.result import Result, Table
from rela.sources.splits.tree import make_output_folder
from rela.stages.output import require_writable, written
from rela.stages.priors.rank import Ranking, rank
from rela.stages.priors.suggested import suggested_embedding
from rela.stages.report.accuracy import accuracies_of
from rela.stages.report.feature_map import Neighbours, feature_map
from rela.stages.report.figures import Figure
from rela.stages.report.lines import Line, lines_of
from rela.stages.report.page import Chapter, Page, render, template_environment
from rela.stages.report.plots import COURSES, Plots
from rela.stages.report.reproduction import commands_for
from rela.stages.report.run_record import RunRecord, record_of
from rela.stages.report.savings import COSTS, PREFERRED, common_measure, savings_of
from rela.stages.report.words import headline, saving_sentences
from rela.stages.requests import Rank, Report
from rela.stages.settings import ReportSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import Run, UnfinishedRun, unfinished_run
from rela.stages.workspace.summary import SHEET_FILE
from rela.stages.workspace.workspace import Workspace, free_name

PAGE_FILE = "report.html"
_RANKED_ROWS = 2000
_LARGEST_SHEET_BYTES = 1_000_000


@dataclass(frozen=True, repr=False)
class ReportResult(Result):
    """The page, its figures as PNG, and the headline of every data set."""

    page: Path
    pictures: list[Path]
    runs: list[str]
    headlines: dict[str, str]

    def shown(self) -> dict[str, Any]:
        """Where the page is, and what it is about."""
        return {"runs": ", ".join(self.runs), "figures": len(self.pictures), "page": self.page}

    def tables(self) -> dict[str, Table]:
        """The headline of every data set."""
        return {"headlines": ((), [list(pair) for pair in self.headlines.items()])}


def report(workspace: Workspace, request: Report, say: Say = print) -> ReportResult:
    """Write `report.html` and PNGs of its figures about the named runs, or about all finished ones.

    Missing features of held-out images are embedded with the shown runs. Raises ChoiceError if there is
    no such run, UnavailableError if an extra is missing.
    """
    settings, names, output = part_of(request, ReportSettings), request.names, Path(request.output)
    about = _about(workspace, names)
    _refuse_another(output, about)
    template_environment()
    require("matplotlib", "report", "rela report", UnavailableError)
    chosen = (
        [workspace.run(n) for n in dict.fromkeys(names)]
        if names
        else workspace.runs(with_snapshots=False)
    )
    unfinished = [] if names else _unfinished(workspace, say)
    if not chosen:
        raise ChoiceError(f"no finished run in {workspace.root}; {_remedy(unfinished)}")
    datasets = _datasets_of(workspace, chosen)
    records = [record_of(run, datasets.get(run.dataset_fingerprint)) for run in chosen]
    by_dataset: dict[str, list[RunRecord]] = {}
    for record in records:
        by_dataset.setdefault(record.run.content.dataset, []).append(record)
    numbers = {record.name: number for number, record in enumerate(records)}
    chapters = [
        _chapter(
            workspace,
            name,
            lines_of(runs),
            [r for r in unfinished if r.dataset == name],
            numbers,
            datasets,
            settings,
            say,
        )
        for name, runs in by_dataset.items()
    ]
    chapters.sort(key=lambda chapter: -sum(len(line.runs) for line in chapter.lines))
    versions = records[-1].run.versions
    now = time.strftime("%Y-%m-%d %H:%M %Z")
    page = Page(chapters, numbers, versions, now, about)
    make_output_folder(output)
    pictures = []
    for drawing in (figure for chapter in chapters for figure in chapter.figures):
        pictures.append(output / f"{drawing.name}.png")
        with written(pictures[-1]) as temporary:
            temporary.write_bytes(drawing.png)
    html = render(page).encode("utf-8", "backslashreplace")  # names may not be UTF-8
    with written(output / PAGE_FILE) as temporary:
        temporary.write_bytes(html)
    return ReportResult(
        output / PAGE_FILE, pictures, list(numbers), {c.dataset: c.headline for c in chapters}
    )


def format_result(result: ReportResult) -> str:
    """The headlines and the path of the page."""
    count = len(result.runs)
    headlines = "\n".join(f"{dataset}: {line}" for dataset, line in result.headlines.items())
    return (
        f"{headlines}\n{count} run{'s' if count > 1 else ''}: {result.page} "
        f"({len(result.pictures)} figures beside it as PNG)"
    )


def _chapter(
    workspace: Workspace,
    dataset: str,
    lines: list[Line],
    unfinished: list[UnfinishedRun],
    numbers: dict[str, int],
    datasets: dict[str, DataSet],
    settings: ReportSettings,
    say: Say,
) -> Chapter:
    runs = [run for line in lines for run in line.runs]
    measures = _measures(runs)
    there = datasets.get(runs[0].run.dataset_fingerprint)
    accuracies = accuracies_of(workspace, lines, measures, there, say)
    plots, savings = Plots(dataset, lines, numbers, accuracies.levels), savings_of(runs)
    common = common_measure([run for run in runs if run.accuracies])
    drawn = [measure for measure in measures if measure in (common, *DEFAULT_PROTOCOLS)]
    costs = []
    for cost in COSTS:
        costs += [plots.final_against_cost(cost, measure) for measure in drawn]
        costs.append(plots.online_against_cost(cost))
    maps, neighbours = _features(workspace, plots, settings, say)
    return Chapter(
        dataset=dataset,
        headline=headline(savings, lines, "" if there is None else suggested_embedding(there)),
        sentences=saving_sentences(savings, lines),
        lines=lines,
        measures=measures,
        accuracies=accuracies,
        unfinished=unfinished,
        costs=_drawn(costs),
        courses=_drawn([*map(plots.over_epochs, COURSES), plots.ledger()]),
        maps=maps,
        neighbours=neighbours,
        ranking=_ranking(workspace, dataset),
        commands={run.name: commands_for(workspace, run.run) for run in runs},
        contact_sheet=_contact_sheet(there),
    )


def _contact_sheet(dataset: DataSet | None) -> str:
    """In base64; empty for data sets without one, and for one that is too large to be carried along."""
    path = None if dataset is None else dataset.path / SHEET_FILE
    if path is None or not path.is_file() or path.stat().st_size > _LARGEST_SHEET_BYTES:
        return ""
    return base64.b64encode(read_regular(path)).decode()


def _about(workspace: Workspace, names: list[str]) -> str:
    """What a report is about: a digest of the workspace and the names of the runs, if they were given."""
    return fingerprint({"workspace": str(workspace.root.resolve()), "runs": sorted(set(names))})[
        :16
    ]


def _refuse_another(output: Path, about: str) -> None:
    """Raise ChoiceError if the folder holds a page about something else."""
    page = output / PAGE_FILE
    there = next(path for path in (output, *output.parents) if path.exists())
    if not there.is_dir():
        raise ChoiceError(f"--output {output}: {there} is a file; choose another folder")
    if there != output and output.suffix in (".html", ".htm"):
        raise ChoiceError(
            f"--output {output}: expected a folder, in which {PAGE_FILE} is written; "
            f"use --output {shlex.quote(str(output.with_suffix('')))}"
        )
    require_writable(there)
    if not page.is_file():
        return
    with open(page, "rb") as file:
        begin = file.read(1000).decode("utf-8", "replace")
    if about not in begin:
        name = free_name(output.name, lambda name: output.with_name(name).exists())
        free = output.with_name(name)
        raise ChoiceError(
            f"{page} is a report about other runs; remove it, or choose another folder, such as "
            f"--output {shlex.quote(str(free))}"
        )


def _measures(runs: Iterable[RunRecord]) -> list[str]:
    known = {protocol for run in runs for protocol in run.accuracies}
    return [p for p in PREFERRED if p in known] + sorted(known - set(PREFERRED))


def _unfinished(workspace: Workspace, say: Say) -> list[UnfinishedRun]:
    found = []
    for directory in workspace.unfinished_runs():
        try:
            found.append(unfinished_run(directory))
        except CorruptArtifactError as error:
            say(f"skipped: {error}")
    return found


def _remedy(unfinished: list[UnfinishedRun]) -> str:
    if not unfinished:
        return "make one with `rela train`"
    return "resume " + ", or ".join(f"`{run.command}` ({run.done})" for run in unfinished)


def _drawn(found: Iterable[Figure | None]) -> list[Figure]:
    return [figure for figure in found if figure is not None]


def _features(
    workspace: Workspace, plots: Plots, settings: ReportSettings, say: Say
) -> tuple[list[Figure], dict[str, list[Neighbours]]]:
    """Maps of the largest-budget run of each line, the best lines first, at most `settings.maps`."""
    best = [max(line.runs, key=lambda r: (r.num_images_seen, -r.seed)) for line in plots.lines]
    best.sort(key=_how_good, reverse=True)
    maps = []
    neighbours: dict[str, list[Neighbours]] = {}
    for run in best[: settings.maps]:
        try:
            dataset = workspace.dataset_for(run.run)
            found, near = feature_map(workspace, dataset, run.run, settings.projection, say)
        except UnavailableError:
            raise
        except RelaError as error:
            say(f"no features of run {run.name}: {error}")
            continue
        maps.append(plots.feature_map(found))
        if not neighbours:  # only for the best line
            neighbours[run.name] = near
    return _drawn(maps), neighbours


def _how_good(run: RunRecord) -> tuple[float, float]:
    accuracy = max(run.accuracies.values(), default=0.0)
    return accuracy, run.run.content.online_accuracy or 0.0


def _datasets_of(workspace: Workspace, runs: Iterable[Run]) -> dict[str, DataSet]:
    """The data sets of `runs` that still exist, by fingerprint."""
    found = {}
    for run in runs:
        with contextlib.suppress(ChoiceError):  # it is gone, and so are its copies
            dataset = workspace.dataset_of(run.content.dataset, run.dataset_fingerprint)
            found[dataset.fingerprint] = dataset
    return found


def _ranking(workspace: Workspace, dataset: str) -> Ranking | None:
    try:
        return rank(workspace, Rank(dataset, rows=_RANKED_ROWS))
    except RelaError:
        return None  # nothing is embedded, or the data set is gone
