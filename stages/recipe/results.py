"""Evaluated runs → a table: mean and spread over seeds for every combination of varied settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rela.evaluation.protocols import PROTOCOLS, Measure
from rela.result import Table
from rela.stages.display import Spread, format_table
from rela.stages.evaluate.comparison import in_words
from rela.stages.evaluate.groups import (
    Spreads,
    compared,
    grouped,
    over_probe_seeds,
    over_runs,
    varying,
)
from rela.stages.evaluate.measured import Evaluation
from rela.stages.evaluate.table import cell, chances, coverages, named, summarize
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


@dataclass(frozen=True)
class Reference:
    """What runs on this data set are compared with: a prior, or chance."""

    dataset: str | None
    name: str
    accuracies: dict[str, Spread]


def results_of(workspace: Workspace, evaluations: list[Evaluation]) -> list[ResultRow]:
    """One row per group of runs that differ only in their seed, in the order of `evaluations`."""
    last = {(e.run, e.results["dataset"]): e for e in evaluations}
    evaluated = [(workspace.run(evaluation.run), evaluation) for evaluation in last.values()]
    groups = grouped(evaluated, _equal_but_for_seed)
    varied = _varied([group[0][0] for group in groups])
    return [_row(group, varied) for group in groups]


def references_of(evaluations: list[Evaluation]) -> list[Reference]:
    """The priors that the runs learned from, by the same probes, and chance."""
    found = [
        Reference(one.results["dataset"], name, _leading_figures(over_probe_seeds(one)))
        for name, one in named(evaluations)
        if one.run is None
    ]
    protocols = dict.fromkeys(p for e in evaluations for p in e.results["accuracies"])
    for dataset, chance in chances(evaluations).items():
        top1 = Spread(chance.top1, None)
        shown = {p: top1 for p in protocols if _leading(p).key == "top1"}
        found.append(Reference(dataset, "chance (the largest class)", shown))
    return found


def notes_on(evaluations: list[Evaluation]) -> list[str]:
    """No better than chance, probes that disagree, why not just to use the prior, priors not shown."""
    found = summarize(evaluations)
    return [
        *coverages(evaluations, only_warnings=True),
        *in_words(found.below_chance, found.disagreements),
        *(line for one in found.instead for line in one.lines()),
        *dict.fromkeys(e.without_prior for e in evaluations if e.without_prior),
    ]


def format_results(
    rows: Sequence[ResultRow], references: Sequence[Reference] = (), notes: Sequence[str] = ()
) -> str:
    """The table, a line that explains its figures, and the notes."""
    explanation = (
        "mean ± sample standard deviation over seeds; seconds count converting, embedding, targets and "
        "training"
    )
    return "\n".join([format_table(*results_table(rows, references)), explanation, *notes])


def results_table(rows: Sequence[ResultRow], references: Sequence[Reference]) -> Table:
    """The references below the runs."""
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
    cells += [
        [
            *(one.dataset, one.name, None, None, *[None] * len(names), None),
            *(cell(one.accuracies.get(p), _leading(p)) for p in protocols),
            None,
        ]
        for one in references
    ]
    return header, cells


def _leading(protocol: str) -> Measure:
    return PROTOCOLS[protocol].measures[0]


def _leading_figures(measures: Spreads) -> dict[str, Spread]:
    return {protocol: found[_leading(protocol).key] for protocol, found in measures.items()}


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
        accuracies=_leading_figures(over_runs([found for _, found in group])),
        seconds=Spread.of(seconds) if seconds else None,
    )
