"""A table of evaluations, with spreads over seeds and descriptions of the protocols."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rela.evaluation.protocols import LAST_EPOCHS, Measure, all_measures
from rela.stages.display import Spread, format_table
from rela.stages.evaluate.evaluate import Evaluation
from rela.stages.evaluate.groups import Spreads, compared, grouped, over_probe_seeds, over_runs


@dataclass(frozen=True)
class SeedSummary:
    """Runs that differ only in their seed: figures by protocol, over `seeds`.

    The figure of a run is the mean over its probe seeds.
    """

    runs: list[str]
    seeds: list[int]
    dataset: str
    measures: Spreads


@dataclass(frozen=True)
class Report:
    """All evaluations of one call. `over_probe_seeds`: one entry per evaluation."""

    evaluations: list[Evaluation]
    over_probe_seeds: list[Spreads]
    over_run_seeds: list[SeedSummary]
    cached: bool


def summarize(evaluations: list[Evaluation]) -> Report:
    """Means and spreads over the probe seeds of each evaluation, and over the seeds of equal runs."""
    return Report(
        evaluations,
        [over_probe_seeds(evaluation) for evaluation in evaluations],
        _over_run_seeds(evaluations),
        all(evaluation.cached for evaluation in evaluations),
    )


def format_report(found: Report) -> str:
    """The table, the descriptions of the protocols, and the files with the figures."""
    rows: list[tuple[str, str, dict[str, Spread], str | None]] = []
    how: dict[str, dict[str, list[str]]] = {}
    for evaluation, measures in zip(found.evaluations, found.over_probe_seeds, strict=True):
        name = evaluation.run or evaluation.results["evaluated"]
        for protocol, record in evaluation.results["measurements"].items():
            rows.append((name, protocol, measures[protocol], evaluation.results["dataset"]))
            how.setdefault(protocol, {}).setdefault(record["how"], []).append(name)
    for summary in found.over_run_seeds:
        seeds = ", ".join(str(seed) for seed in summary.seeds)
        words = f"mean ± std over run seeds {seeds}"
        rows += [(words, p, m, summary.dataset) for p, m in summary.measures.items()]
    shown = [measure for measure in all_measures() if any(measure.key in row[2] for row in rows)]
    cells: list[list[str | None]] = [
        [name, protocol, *(cell(figures.get(measure.key), measure) for measure in shown)]
        for name, protocol, figures, _ in rows
    ]
    header = ["evaluated", "protocol", *(measure.titled(measure.name) for measure in shown)]
    last_epochs = _last_epochs(found.evaluations)
    if last_epochs:
        header.append("top-1 %, last 3 epochs")
        cells = [[*row, last_epochs.get((row[0], row[1]))] for row in cells]
    if len({row[3] for row in rows}) > 1:  # figures of different data sets cannot be compared
        header.insert(1, "data set")
        cells = [[row[0], of[3], *row[1:]] for row, of in zip(cells, rows, strict=True)]
    return "\n".join(
        [
            *_titles(found),
            format_table(header, cells),
            *_in_words(how),
            *dict.fromkeys(f"written to {evaluation.path}" for evaluation in found.evaluations),
        ]
    )


def cell(figure: Spread | None, measure: Measure) -> str | None:
    """`93.12 ± 0.40`: a share in percent; None without a figure."""
    if figure is None:
        return None
    return figure.percent() if measure.is_share else figure.words(2)


def _titles(found: Report) -> list[str]:
    names = dict.fromkeys(e.results["dataset"] for e in found.evaluations)
    named = [name for name in names if name is not None]
    titles = [f"data set {', '.join(named)}"] if named else []
    measured = [r for e in found.evaluations for r in e.results["measurements"].values()]
    num_seeds = max(len(record["by_probe_seed"]) for record in measured)
    if num_seeds > 1:
        titles.append(
            f"mean ± std over {num_seeds} probe seeds (initial layer, order, labelled subset) of the "
            "same weights; k-NN has no seed"
        )
    return titles


def _in_words(how: dict[str, dict[str, list[str]]]) -> Iterable[str]:
    """One line per protocol; with the names of evaluations if they differ."""
    for protocol, descriptions in how.items():
        for words, names in descriptions.items():
            whose = f" ({', '.join(names)})" if len(descriptions) > 1 else ""
            yield f"{protocol}{whose}: {words}"


def _last_epochs(evaluations: list[Evaluation]) -> dict[tuple[str | None, str | None], str]:
    """Mean ± std over the last epochs of one training, for probe seed 0 of the reference's protocol."""
    found: dict[tuple[str | None, str | None], str] = {}
    for evaluation in evaluations:
        for protocol, figures in evaluation.results["accuracies"].items():
            if all(key in figures for key in LAST_EPOCHS):
                mean, std = (figures[key] for key in LAST_EPOCHS)
                name = evaluation.run or evaluation.results["evaluated"]
                found[name, protocol] = Spread(mean, std).percent()
    return found


def _over_run_seeds(evaluations: list[Evaluation]) -> list[SeedSummary]:
    """A summary of each group of runs with several seeds that differ only in their seed."""
    of_runs = [evaluation for evaluation in evaluations if evaluation.parameters is not None]
    found = []
    for group in grouped(of_runs, _equal_but_for_seed):
        by_seed = {int((one.parameters or {})["seed"]): one for one in reversed(group)}
        if len(by_seed) > 1:
            seeds = sorted(by_seed)
            chosen = [by_seed[seed] for seed in seeds]
            names, dataset = [str(one.run) for one in chosen], chosen[0].results["dataset"]
            found.append(SeedSummary(names, seeds, dataset, over_runs(chosen)))
    return found


def _equal_but_for_seed(evaluation: Evaluation) -> Any:
    return [compared(evaluation.parameters or {}), evaluation.results["dataset_fingerprint"]]
