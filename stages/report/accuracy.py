"""Accuracies of a data set's runs over seeds, beside those of their priors and of chance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rela.evaluation.protocols import PROTOCOLS
from rela.pipeline import Say
from rela.stages.display import Spread
from rela.stages.evaluate.chance import Chance, chance_of
from rela.stages.evaluate.comparison import Compared, below_chance, disagreements, in_words
from rela.stages.evaluate.groups import grouped, over_probe_seeds, unlike
from rela.stages.evaluate.instead import Candidate, Instead, instead_of
from rela.stages.evaluate.measured import Evaluation
from rela.stages.evaluate.of_prior import prior_of
from rela.stages.evaluate.speed import speed_of_run
from rela.stages.report.lines import Line
from rela.stages.report.run_record import RunRecord
from rela.stages.report.savings import ONLINE
from rela.stages.settings import EmbedSettings, EvaluateSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace

CHANCE = "chance"


@dataclass(frozen=True)
class Level:
    """Accuracies in [0, 1] by measure that no training changes: of a prior, or of chance.

    `line`: the first that learned from this `prior`; both None for chance.
    """

    label: str
    accuracies: dict[str, float]
    line: Line | None = None
    prior: Evaluation | None = None


@dataclass(frozen=True)
class Row:
    """Runs of a line with one budget. `accuracies`: by protocol, over `seeds`; `seconds`: everything."""

    label: str
    line: Line
    seeds: list[int]
    accuracies: dict[str, Spread]
    seconds: Spread


@dataclass(frozen=True)
class Accuracies:
    """What a chapter compares. `sentences`: at chance, probes that disagree, priors that are not shown.

    `instead`: priors beside their best students.
    """

    levels: list[Level]
    rows: list[Row]
    sentences: list[str]
    instead: list[Instead]


def accuracies_of(
    workspace: Workspace,
    lines: Sequence[Line],
    measures: Sequence[str],
    dataset: DataSet | None,
    say: Say,
) -> Accuracies:
    """Compare the lines by protocols `measures`. `dataset` is theirs; None if it is gone or has changed.

    Their priors are measured on it, unless they have been.
    """
    rows = _rows(lines, measures)
    priors, missing, instead, chance = [], [], [], None
    if dataset is not None:
        found = _priors(workspace, lines, measures, dataset, say)
        missing = [reason for _, reason in found if isinstance(reason, str)]
        priors = _levels((line, prior) for line, prior in found if isinstance(prior, Evaluation))
        instead = [beside for level in priors for beside in _instead(workspace, level, lines)]
        chance = chance_of(dataset)
    name = lines[0].runs[0].run.content.dataset
    compared = [
        *(
            Compared(r.label, name, {p: s.mean for p, s in r.accuracies.items()}, chance)
            for r in rows
        ),
        *(Compared(level.label, name, level.accuracies, chance) for level in priors),
    ]
    sentences = in_words(below_chance(compared), disagreements(compared), others="")
    coverage = None if dataset is None else dataset.coverage()
    if coverage is not None and not coverage.is_whole:
        sentences = [coverage.words(), *sentences]
    if chance is not None and (tops := [top1 for each in compared for top1 in each.top1.values()]):
        sentences.append(chance.spread_in_words(name, tops))
    levels = priors if dataset is None else [*priors, *_chance(dataset, chance, measures)]
    return Accuracies(levels, rows, [*sentences, *dict.fromkeys(missing)], instead)


def _instead(workspace: Workspace, level: Level, lines: Sequence[Line]) -> list[Instead]:
    assert level.line is not None and level.prior is not None
    key = level.line.runs[0].run.settings.prior
    runs = [r for line in lines for r in line.runs if r.run.settings.prior == key]
    students = [
        Candidate(
            run.name,
            run.run.model,
            speed_of_run(workspace, run.run, EmbedSettings.device),
            run.accuracies,
        )
        for run in runs
    ]
    return instead_of(level.label, level.prior, level.accuracies, students)


def _rows(lines: Sequence[Line], measures: Sequence[str]) -> list[Row]:
    budgets = {run.budget for line in lines for run in line.runs}
    found = []
    for line in lines:
        for runs in grouped(line.runs, lambda run: run.budget):
            figures = {
                measure: Spread.of([run.accuracies[measure] for run in runs])
                for measure in measures
                if all(measure in run.accuracies for run in runs)
            }
            label = line.label if len(budgets) == 1 else f"{line.label}, {_budget(runs[0])}"
            seconds = Spread.of([run.total_seconds for run in runs])
            found.append(Row(label, line, sorted(run.seed for run in runs), figures, seconds))
    return found


def _budget(run: RunRecord) -> str:
    epochs, share = run.budget
    return f"{epochs} epoch{'s' * (epochs != 1)}" + (f" of {share:g} of the images" * (share < 1))


def _priors(
    workspace: Workspace,
    lines: Sequence[Line],
    measures: Sequence[str],
    dataset: DataSet,
    say: Say,
) -> list[tuple[Line, Evaluation | str | None]]:
    first = {line.runs[0].run.settings.prior: line for line in reversed(lines)}
    settings = EvaluateSettings(protocol=tuple(m for m in measures if m in PROTOCOLS))
    return [
        (line, prior_of(workspace, line.runs[0].run, dataset, settings, EmbedSettings(), say))
        for line in reversed(first.values())
    ]


def _levels(found: Iterable[tuple[Line, Evaluation]]) -> list[Level]:
    by_subject = {e.results["subject"]: (line, e) for line, e in reversed(list(found))}
    names = unlike({subject: e.results["evaluated"] for subject, (_, e) in by_subject.items()})
    return [
        Level(
            f"prior {names[subject]}",
            {p: f["top1"].mean for p, f in over_probe_seeds(prior).items() if "top1" in f},
            line,
            prior,
        )
        for subject, (line, prior) in reversed(by_subject.items())
    ]


def _chance(dataset: DataSet, of_val: Chance | None, measures: Sequence[str]) -> list[Level]:
    """Of held-out images, and of training images for online accuracy."""
    of_train = chance_of(dataset, "train")
    known = {} if of_val is None else dict.fromkeys(measures, of_val.top1)
    if of_train is not None:
        known[ONLINE] = of_train.top1
    return [Level(CHANCE, known)] if known else []
