"""A table of evaluations, with spreads over seeds and descriptions of the protocols."""

from collections.abc import Iterable
from dataclasses import dataclass

from rela.evaluation.protocols import LAST_EPOCHS, Measure, all_measures
from rela.pipeline.fingerprint import fingerprint
from rela.stages.display import Spread, format_table
from rela.stages.evaluate.evaluate import Evaluation
from rela.training.settings import WHERE_TO_RUN

_NOT_COMPARED = {"seed", *WHERE_TO_RUN}


@dataclass(frozen=True)
class SeedSummary:
    """Runs that differ only in their seed: figures by protocol, over `seeds`.

    The figure of a run is the mean over its probe seeds.
    """

    runs: list[str]
    seeds: list[int]
    dataset: str
    measures: dict[str, dict[str, Spread]]


@dataclass(frozen=True)
class Report:
    """All evaluations of one call. `over_probe_seeds`: one entry per evaluation."""

    evaluations: list[Evaluation]
    over_probe_seeds: list[dict[str, dict[str, Spread]]]
    over_run_seeds: list[SeedSummary]
    cached: bool


def report(evaluations: list[Evaluation]) -> Report:
    """Means and spreads over the probe seeds of each evaluation, and over the seeds of equal runs."""
    return Report(
        evaluations,
        [_over_probe_seeds(evaluation) for evaluation in evaluations],
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
    num_seeds = {_num_probe_seeds(e) for e in found.evaluations}
    if max(num_seeds) > 1:
        titles.append(
            f"mean ± std over {max(num_seeds)} probe seeds (initial layer, order, labelled subset) of the "
            "same weights; k-NN has no seed"
        )
    return titles


def _num_probe_seeds(evaluation: Evaluation) -> int:
    return max(len(r["by_probe_seed"]) for r in evaluation.results["measurements"].values())


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


def _over_probe_seeds(evaluation: Evaluation) -> dict[str, dict[str, Spread]]:
    found = {}
    for protocol, record in evaluation.results["measurements"].items():
        by_seed = list(record["by_probe_seed"].values())
        found[protocol] = {
            measure.key: Spread.of([figures[measure.key] for figures in by_seed])
            for measure in all_measures()
            if all(measure.key in figures for figures in by_seed)
        }
    return found


def _over_run_seeds(evaluations: list[Evaluation]) -> list[SeedSummary]:
    """One summary per group of two or more runs that differ only in their seeds."""
    groups: dict[str, dict[int, Evaluation]] = {}
    for evaluation in evaluations:
        if evaluation.parameters is not None:
            equal = {k: v for k, v in evaluation.parameters.items() if k not in _NOT_COMPARED}
            key = fingerprint([equal, evaluation.results["dataset_fingerprint"]])
            groups.setdefault(key, {}).setdefault(evaluation.parameters["seed"], evaluation)
    return [_summary(group) for group in groups.values() if len(group) > 1]


def _summary(group: dict[int, Evaluation]) -> SeedSummary:
    seeds = sorted(group)
    single = [_over_probe_seeds(group[seed]) for seed in seeds]
    return SeedSummary(
        runs=[str(group[seed].run) for seed in seeds],
        seeds=seeds,
        dataset=group[seeds[0]].results["dataset"],
        measures={
            protocol: {
                key: Spread.of([figures[protocol][key].mean for figures in single])
                for key in measures
            }
            for protocol, measures in single[0].items()
        },
    )
