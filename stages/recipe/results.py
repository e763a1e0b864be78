"""Evaluated runs → a table: mean and spread over seeds for every combination of varied settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rela.evaluation.protocols import PROTOCOLS, Measure
from rela.stages.display import Spread, format_table
from rela.stages.evaluate.groups import compared, grouped, over_runs, varying
from rela.stages.evaluate.measured import Evaluation
from rela.stages.evaluate.table import cell
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace

_COLUMNS = ("prior", "method", "data_ratio")


@dataclass(frozen=True)
class ResultRow:
    """Runs that differ only in their seed, evaluated on one data set.

    `settings` are those that differ between rows; `accuracies` is the leading measure of each protocol
    (top-1 in [0, 1], or mean IoU of segmentation); `seconds` include everything.
    """

    dataset: str
    prior: str
    method: str
    data_ratio: float
    settings: dict[str, Any]
    runs: list[str]
    seeds: list[int]
    accuracies: dict[str, Spread]
    seconds: Spread | None


def results_of(workspace: Workspace, evaluations: list[Evaluation]) -> list[ResultRow]:
    """One row per group of runs that differ only in their seed, in the order of `evaluations`."""
    last = {(e.run, e.results["dataset"]): e for e in evaluations}
    evaluated = [(workspace.run(evaluation.run), evaluation) for evaluation in last.values()]
    groups = grouped(evaluated, _equal_but_for_seed)
    varied = _varied([group[0][0] for group in groups])
    return [_row(group, varied) for group in groups]


def format_results(rows: Sequence[ResultRow]) -> str:
    """The table, and a line that explains its figures."""
    names = list(rows[0].settings)
    protocols = list(dict.fromkeys(name for row in rows for name in row.accuracies))
    header = [
        *("data set", "prior", "method", "data ratio", *(n.replace("_", " ") for n in names)),
        *("seeds", *(_leading(p).titled(PROTOCOLS[p].title) for p in protocols), "seconds"),
    ]
    cells = [
        [
            *(row.dataset, row.prior, row.method, row.data_ratio, *map(row.settings.get, names)),
            ", ".join(map(str, row.seeds)),
            *(cell(row.accuracies.get(p), _leading(p)) for p in protocols),
            None if row.seconds is None else row.seconds.words(1),
        ]
        for row in rows
    ]
    return (
        f"{format_table(header, cells)}\nmean ± sample standard deviation over seeds; seconds count "
        "converting, embedding, targets and training"
    )


def _leading(protocol: str) -> Measure:
    return PROTOCOLS[protocol].measures[0]


def _equal_but_for_seed(evaluated: tuple[Run, Evaluation]) -> Any:
    run, evaluation = evaluated
    return [evaluation.results["dataset"], run.dataset_fingerprint, compared(vars(run.settings))]


def _varied(runs: list[Run]) -> list[str]:
    """Settings that vary among the runs with a prior, or among those without."""
    settings = [
        [vars(run.settings) for run in group]
        for group in grouped(runs, lambda run: run.content.prior is None)
    ]
    return list(dict.fromkeys(name for each in settings for name in varying(each, _COLUMNS)))


def _row(group: list[tuple[Run, Evaluation]], varied: list[str]) -> ResultRow:
    (run, evaluation), runs = group[0], [one for one, _ in group]
    measured = over_runs([found for _, found in group])
    seconds = [s for one in runs if (s := one.total_seconds) is not None]
    trained_on, on = run.content.dataset, evaluation.results["dataset"]
    return ResultRow(
        dataset=trained_on if on in (None, trained_on) else f"{trained_on} → {on}",
        prior=run.content.prior or "none",
        method=run.settings.method,
        data_ratio=run.settings.data_ratio,
        settings={name: getattr(run.settings, name) for name in varied},
        runs=[one.name for one in runs],
        seeds=[one.settings.seed for one in runs],
        accuracies={name: found[_leading(name).key] for name, found in measured.items()},
        seconds=Spread.of(seconds) if seconds else None,
    )
