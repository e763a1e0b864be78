"""The sentences of a report, computed from its figures."""

import shlex
import statistics
from collections.abc import Sequence

from rela.evaluation.protocols import title_of
from rela.stages.display import Spread
from rela.stages.evaluate.groups import grouped
from rela.stages.report.lines import Line
from rela.stages.report.reproduction import counterpart
from rela.stages.report.savings import ONLINE, Saving

_SAME_BUDGET = 0.01  # share by which images seen may differ


def saving_sentences(savings: Sequence[Saving], lines: Sequence[Line]) -> list[str]:
    """Sentences for each line with a prior and measure; seconds and evaluated accuracy come first."""
    labels = {line.key: line.label for line in lines}
    ordered = sorted(savings, key=lambda s: (s.line, s.measure == ONLINE, s.cost != "seconds"))
    groups = grouped(ordered, lambda saving: (saving.line, saving.measure))
    return list(dict.fromkeys(_sentence(group, labels[group[0].line]) for group in groups))


def headline(savings: Sequence[Saving], lines: Sequence[Line], embedding: str = "") -> str:
    """The main result: the line that is cheapest in seconds, by an evaluated accuracy if possible.

    `embedding`: the command that embeds a prior, to propose where no run uses any.
    """
    dataset = lines[0].runs[0].run.content.dataset
    longest = max((run for line in lines for run in line.runs), key=lambda r: r.num_images_seen).run
    if all(line.is_baseline for line in lines):
        embedding = embedding or f"rela embed {dataset} --prior resnet18"
        words = shlex.split(embedding)
        prior = words[words.index("--prior") + 1]
        return (
            f"No run uses a prior yet; `{embedding}` and `{counterpart(longest, prior)}` make one."
        )
    if not any(line.is_baseline for line in lines):
        return (
            "There is no run without a prior to compare with; "
            f"`{counterpart(longest, 'none')}` trains one."
        )
    by_seconds = [s for s in savings if s.cost == "seconds"]
    evaluated = [s for s in by_seconds if s.measure != ONLINE] or by_seconds
    reached = [s for s in evaluated if s.mean is not None]
    labels = {line.key: line.label for line in lines}
    if not reached:
        if not savings:
            return "No run with a prior matches a run without one in settings and seed; nothing to compare."
        if all(saving.is_chance for saving in evaluated):
            return _sentence(evaluated[:1], labels[evaluated[0].line])
        return "No training with a prior reached the accuracy of training without it on every seed."
    best = min(reached, key=lambda s: s.mean or 0.0)
    of_best = [s for s in savings if (s.line, s.measure) == (best.line, best.measure)]
    sentence = _sentence(sorted(of_best, key=lambda s: s.cost != "seconds"), labels[best.line])
    if best.measure != ONLINE:
        return sentence
    return f"{sentence} Online accuracy is of augmented training images; `rela eval --all` measures others."


def _sentence(savings: Sequence[Saving], label: str) -> str:
    """Of one line and measure, by each cost."""
    saving = savings[0]
    aim = f"{100 * statistics.fmean(saving.aims.values()):.1f} %"
    best = f"{100 * statistics.fmean(saving.bests.values()):.1f} %"
    measure = "online" if saving.measure == ONLINE else title_of(saving.measure)
    num_seeds, num_reached = len(saving.aims), len(saving.shares)
    seeds = "one seed" if num_seeds == 1 else f"{num_seeds} seeds"
    if saving.is_chance:
        return (
            f"Without a prior, the best {measure} accuracy ({aim}) is no better than chance, so there is "
            "nothing to reach; train for more --epochs."
        )
    if saving.mean is not None:
        how = f"It reaches {aim} in {' and '.join(map(_share, savings))}."
    elif num_reached:
        how = f"It reaches {aim} on {num_reached} of {num_seeds} seeds only."
    else:
        how = f"It never reaches {aim}."
    ours, theirs = saving.images_seen
    if abs(ours - theirs) <= _SAME_BUDGET * theirs:
        return f"{label}: {best} {measure} accuracy, against {aim} without a prior ({seeds}). {how}"
    return (
        f"{label}: {best} {measure} accuracy after {ours:,.0f} images of training, against {aim} without a "
        f"prior after {theirs:,.0f} ({seeds}). {how}"
    )


def _share(saving: Saving) -> str:
    assert saving.mean is not None
    unit = "seconds" if saving.cost == "seconds" else "images seen"
    at_most = "at most " if saving.is_bound else ""  # the cheapest run is already there
    if saving.mean > 1:
        return f"{at_most}{saving.mean:.1f} times the {unit}"
    return f"{at_most}{Spread(saving.mean, saving.std).percent(0)} % of the {unit}"
