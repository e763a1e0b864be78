"""A table of evaluations, with spreads over seeds and descriptions of the protocols."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rela.evaluation.protocols import LAST_EPOCHS, Measure, all_measures, title_of
from rela.result import Result, Table
from rela.stages.display import Spread, format_table, next_command
from rela.stages.evaluate.chance import Chance
from rela.stages.evaluate.comparison import (
    BelowChance,
    Compared,
    Disagreement,
    below_chance,
    disagreements,
    in_words,
)
from rela.stages.evaluate.groups import (
    Spreads,
    compared,
    grouped,
    over_probe_seeds,
    over_runs,
    told_apart,
    unlike,
)
from rela.stages.evaluate.groups import in_words as settings_in_words
from rela.stages.evaluate.instead import Candidate, Instead, instead_of
from rela.stages.evaluate.measured import Evaluation

_NOT_AS_ASKED = re.compile("asked for|cut from")  # a small data set changes k or a batch


@dataclass(frozen=True)
class SeedSummary:
    """Runs that differ only in their seed: figures by protocol, over `seeds`.

    The figure of a run is the mean over its probe seeds. `settings`: those that differ from the other
    runs of the table.
    """

    runs: list[str]
    seeds: list[int]
    dataset: str
    measures: Spreads
    settings: dict[str, Any]

    @property
    def words(self) -> str:
        """What the figures are, with the settings."""
        named = settings_in_words(self.settings)
        which = f" ({named})" if named else ""
        return f"mean ± std over run seeds {', '.join(map(str, self.seeds))}{which}"


@dataclass(frozen=True, repr=False)
class Report(Result):
    """All evaluations of one call. `over_probe_seeds`: one entry per evaluation.

    `below_chance`: accuracies that are no better than chance. `disagreements`: pairs, of runs, their
    priors, or means over run seeds, that two probes put in opposite orders.
    """

    evaluations: list[Evaluation]
    over_probe_seeds: list[Spreads]
    over_run_seeds: list[SeedSummary]
    cached: bool
    below_chance: list[BelowChance]
    disagreements: list[Disagreement]
    instead: list[Instead]

    def shown(self) -> dict[str, Any]:
        """The leading figure of each protocol, by what was evaluated."""
        return {
            **{name: in_percent(one.figures()) for name, one in named(self.evaluations)},
            "cached": self.cached,
        }

    def tables(self) -> dict[str, Table]:
        """A row for each model and protocol, means over seeds, priors, chance."""
        return {"accuracies": report_table(self)}


class Evaluations(Result, list[Evaluation]):
    """Evaluations of one call, and what `rela eval` says of all of them."""

    @property
    def summary(self) -> Report:
        """Means over seeds, figures at chance level, probes that disagree, why not to use the prior."""
        return summarize(self)

    def shown(self) -> dict[str, Any]:
        """The leading figure of each protocol, by what was evaluated."""
        return self.summary.shown()

    def tables(self) -> dict[str, Table]:
        """The table of `rela eval`."""
        return self.summary.tables()


def summarize(evaluations: list[Evaluation]) -> Report:
    """Means and spreads over the probe seeds of each evaluation, and over the seeds of equal runs."""
    of_runs = _over_run_seeds(evaluations)
    shown = named(evaluations)
    single = [
        Compared(name, e.results["dataset"], _top1(over_probe_seeds(e)), e.chance)
        for name, e in shown
    ]
    return Report(
        evaluations,
        [over_probe_seeds(evaluation) for evaluation in evaluations],
        of_runs,
        all(evaluation.cached for _, evaluation in shown),
        below_chance(single),
        disagreements(_with_means(single, of_runs)),
        _instead(shown),
    )


def _instead(shown: list[tuple[str, Evaluation]]) -> list[Instead]:
    """Each prior beside the runs that learned from it."""
    found: list[Instead] = []
    names = {one.results["subject"]: name for name, one in shown}
    priors = {e.prior.results["subject"]: e.prior for _, e in shown if e.prior is not None}
    for subject, prior in priors.items():
        students = [
            Candidate(
                name, e.results["identity"]["arch"], e.speed or "", _top1(over_probe_seeds(e))
            )
            for name, e in shown
            if e.prior is not None and e.prior.results["subject"] == subject
        ]
        found += instead_of(names[subject], prior, _top1(over_probe_seeds(prior)), students)
    return found


def named(evaluations: Sequence[Evaluation]) -> list[tuple[str, Evaluation]]:
    """All evaluations with their names, and after them those of the priors of runs, each once."""
    own = {evaluation.results["subject"] for evaluation in evaluations}
    priors = {e.prior.results["subject"]: e.prior for e in evaluations if e.prior is not None}
    others = {subject: prior for subject, prior in priors.items() if subject not in own}
    names = unlike({subject: prior.results["evaluated"] for subject, prior in others.items()})
    return [
        *((name_of(evaluation), evaluation) for evaluation in evaluations),
        *((f"prior {names[subject]}", prior) for subject, prior in others.items()),
    ]


def in_percent(figures: Mapping[str, str]) -> str:
    """`20-NN 85.3 %, linear 84.8 %`."""
    return ", ".join(f"{title} {figure}" for title, figure in figures.items())


def name_of(evaluation: Evaluation) -> str:
    """The run, or the prior."""
    return evaluation.run or str(evaluation.results["evaluated"])


def _top1(measures: Spreads) -> dict[str, float]:
    return {name: found["top1"].mean for name, found in measures.items() if "top1" in found}


def _with_means(single: list[Compared], summaries: list[SeedSummary]) -> list[Compared]:
    """Runs that differ in their seed only are compared with others by their mean, not with each other."""
    chances = {(one.name, one.dataset): one.chance for one in single}
    averaged = {(run, summary.dataset) for summary in summaries for run in summary.runs}
    means = [
        Compared(
            f"the mean of {', '.join(summary.runs)}", summary.dataset, _top1(summary.measures),
            chances[summary.runs[0], summary.dataset],
        )
        for summary in summaries
    ]  # fmt: skip
    return [one for one in single if (one.name, one.dataset) not in averaged] + means


def format_report(found: Report, verbose: bool = False) -> str:
    """The table, and what qualifies its figures; if `verbose`, settings of the probes and files, too."""
    how: dict[str, dict[str, list[str]]] = {}
    shown = named(found.evaluations)
    for name, evaluation in shown:
        for protocol, record in evaluation.results["measurements"].items():
            if verbose or _NOT_AS_ASKED.search(record["how"]):
                how.setdefault(protocol, {}).setdefault(record["how"], []).append(name)
    return "\n".join(
        [
            *_titles(found),
            format_table(*report_table(found)),
            *coverages(found.evaluations, only_warnings=True),
            *_spread_in_words(found),
            *in_words(found.below_chance, found.disagreements),
            *(line for one in found.instead for line in one.lines()),
            *dict.fromkeys(e.without_prior for e in found.evaluations if e.without_prior),
            *_in_words(how),
            *dict.fromkeys(f"written to {evaluation.path}" for _, evaluation in shown if verbose),
            *([next_command("report")] if any(e.run for e in found.evaluations) else []),
        ]
    )


def report_table(found: Report) -> Table:
    """A row for each model and protocol, means over seeds between the runs and their priors, chance."""
    rows: list[tuple[str, str | None, dict[str, Spread], str | None]] = []
    seeds: list[str | None] = []
    shown = named(found.evaluations)
    for name, evaluation in shown:
        measures = over_probe_seeds(evaluation)
        seed = None if evaluation.parameters is None else str(evaluation.parameters["seed"])
        for protocol in evaluation.results["measurements"]:
            seeds.append(seed)
            rows.append((name, protocol, measures[protocol], evaluation.results["dataset"]))
    at = sum(len(evaluation.results["measurements"]) for evaluation in found.evaluations)
    for summary in reversed(found.over_run_seeds):  # between the runs and their priors
        several = ", ".join(str(seed) for seed in summary.seeds)
        rows[at:at] = [(summary.words, p, m, summary.dataset) for p, m in summary.measures.items()]
        seeds[at:at] = [several] * len(summary.measures)
    for dataset, chance in chances(found.evaluations).items():
        shares = {"top1": Spread(chance.top1, None), "top5": Spread(chance.top5, None)}
        rows.append(("chance (the largest class)", None, shares, dataset))
        seeds.append(None)
    measured = [m for m in all_measures() if any(m.key in row[2] for row in rows if row[1])]
    cells: list[list[str | None]] = [
        [name, protocol, *(cell(figures.get(measure.key), measure) for measure in measured)]
        for name, protocol, figures, _ in rows
    ]
    header = ["evaluated", "protocol", *(measure.titled(measure.name) for measure in measured)]
    last_epochs = _last_epochs(shown)
    if last_epochs:
        header.append("top-1 %, last 3 epochs")
        cells = [[*row, last_epochs.get((row[0], row[1]))] for row in cells]
    cells = [[name, None if p is None else title_of(p), *rest] for name, p, *rest in cells]
    header.append("run seeds")
    cells = [[*row, seed] for row, seed in zip(cells, seeds, strict=True)]
    if len({row[3] for row in rows}) > 1:  # figures of different data sets cannot be compared
        header.insert(1, "data set")
        cells = [[row[0], of[3], *row[1:]] for row, of in zip(cells, rows, strict=True)]
    return header, cells


def coverages(evaluations: Sequence[Evaluation], only_warnings: bool = False) -> list[str]:
    """How many classes the validation images of each data set cover; a warning if not all."""
    found = (evaluation.coverage for evaluation in evaluations)
    shown = (c.words() for c in found if c is not None and not (only_warnings and c.is_whole))
    return list(dict.fromkeys(shown))


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


def chances(evaluations: list[Evaluation]) -> dict[str | None, Chance]:
    """By data set."""
    return {e.results["dataset"]: e.chance for e in evaluations if e.chance is not None}


def _spread_in_words(found: Report) -> Iterable[str]:
    """How far figures vary without a reason: the validation images, and the seed if there is one only."""
    for dataset, chance in chances(found.evaluations).items():
        tops = [
            top1
            for e, measures in zip(found.evaluations, found.over_probe_seeds, strict=True)
            if e.results["dataset"] == dataset
            for top1 in _top1(measures).values()
        ]
        if tops:
            yield chance.spread_in_words(dataset, tops)
    if any(e.parameters is not None for e in found.evaluations) and not found.over_run_seeds:
        yield "one seed of each run: the spread over seeds is not known; train with other --seed"


def _in_words(how: dict[str, dict[str, list[str]]]) -> Iterable[str]:
    """One line per protocol; with the names of evaluations if they differ."""
    for protocol, descriptions in how.items():
        for words, names in descriptions.items():
            whose = f" ({', '.join(names)})" if len(descriptions) > 1 else ""
            yield f"{title_of(protocol)}{whose}: {words}"


def _last_epochs(shown: list[tuple[str, Evaluation]]) -> dict[tuple[str | None, str | None], str]:
    """Mean ± std over the last epochs of one training, for probe seed 0 of the reference's protocol."""
    found: dict[tuple[str | None, str | None], str] = {}
    for name, evaluation in shown:
        for protocol, figures in evaluation.results["accuracies"].items():
            if all(key in figures for key in LAST_EPOCHS):
                mean, std = (figures[key] for key in LAST_EPOCHS)
                found[name, protocol] = Spread(mean, std).percent()
    return found


def _over_run_seeds(evaluations: list[Evaluation]) -> list[SeedSummary]:
    """A summary of each group of runs with several seeds that differ only in their seed."""
    of_runs = [evaluation for evaluation in evaluations if evaluation.parameters is not None]
    groups = grouped(of_runs, _equal_but_for_seed)
    priors = unlike({_settings(one)["prior"]: one.prior_name or "none" for one in of_runs})
    settings = [
        {**_settings(first), "prior": priors[_settings(first)["prior"]]} for first, *_ in groups
    ]
    found = []
    for group, differing in zip(groups, told_apart(settings), strict=True):
        by_seed = {int(_settings(one)["seed"]): one for one in reversed(group)}
        if len(by_seed) > 1:
            seeds = sorted(by_seed)
            chosen = [by_seed[seed] for seed in seeds]
            names, dataset = [str(one.run) for one in chosen], chosen[0].results["dataset"]
            found.append(SeedSummary(names, seeds, dataset, over_runs(chosen), differing))
    return found


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    return {"prior": "none", **(evaluation.parameters or {})}


def _equal_but_for_seed(evaluation: Evaluation) -> Any:
    return [compared(evaluation.parameters or {}), evaluation.results["dataset_fingerprint"]]
