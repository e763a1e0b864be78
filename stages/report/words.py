"""The sentences of a report, computed from its figures."""

import statistics
from collections.abc import Sequence

from rela.stages.display import Spread
from rela.stages.report.lines import Line
from rela.stages.report.reproduction import counterpart
from rela.stages.report.savings import ONLINE, Saving


def saving_sentences(savings: Sequence[Saving], lines: Sequence[Line]) -> list[str]:
    """One sentence per line with a prior, measure and cost; seconds and evaluated accuracy come first."""
    labels = {line.key: line.label for line in lines}
    ordered = sorted(savings, key=lambda s: (s.line, s.measure == ONLINE, s.cost != "seconds"))
    return list(dict.fromkeys(_sentence(saving, labels[saving.line]) for saving in ordered))


def headline(savings: Sequence[Saving], lines: Sequence[Line]) -> str:
    """The main result: the line that is cheapest in seconds, by an evaluated accuracy if possible."""
    dataset = lines[0].runs[0].run.content.dataset
    longest = max((run for line in lines for run in line.runs), key=lambda r: r.num_images_seen).run
    if all(line.is_baseline for line in lines):
        return (
            f"No run uses a prior yet; `rela embed {dataset} --prior resnet18` and "
            f"`{counterpart(longest, 'resnet18')}` make one."
        )
    if not any(line.is_baseline for line in lines):
        return (
            "There is no run without a prior to compare with; "
            f"`{counterpart(longest, 'none')}` makes one."
        )
    by_seconds = [s for s in savings if s.cost == "seconds"]
    evaluated = [s for s in by_seconds if s.measure != ONLINE] or by_seconds
    reached = [s for s in evaluated if s.mean is not None]
    labels = {line.key: line.label for line in lines}
    if not reached:
        if not savings:
            return "No run with a prior matches a run without one in settings and seed; nothing to compare."
        if all(saving.is_chance for saving in evaluated):
            return _sentence(evaluated[0], labels[evaluated[0].line])
        return "No training with a prior reached the accuracy of training without it on every seed."
    best = min(reached, key=lambda s: s.mean or 0.0)
    return _sentence(best, labels[best.line])


def _sentence(saving: Saving, label: str) -> str:
    aim = 100 * statistics.fmean(saving.aims.values())
    measure = "online accuracy" if saving.measure == ONLINE else f"{saving.measure} accuracy"
    what = f"the best {measure} of training without a prior ({aim:.1f} %)"
    num_seeds, num_reached = len(saving.aims), len(saving.shares)
    seeds = "one seed, so no spread" if num_seeds == 1 else f"{num_seeds} seeds"
    if saving.is_chance:
        return (
            f"{what[0].upper()}{what[1:]} is no better than chance, so reaching it shows nothing; train "
            "for more --epochs."
        )
    if saving.mean is None:
        on = f" on {num_reached} of {num_seeds} seeds only" if num_reached else ""
        verb = "reaches" if num_reached else "does not reach"
        return f"{label} {verb} {what}{on}."
    unit = "seconds" if saving.cost == "seconds" else "images"
    share = f"{Spread(saving.mean, saving.std).percent(0)} % of the {unit} that it took"
    saved, at_least = 100 * (1 - saving.mean), "at least " if saving.is_bound else ""
    so = f": a saving of {at_least}{saved:.0f} %"
    if saved < 0:
        so = "" if saving.is_bound else f": {-saved:.0f} % more"
    best = f"its own best is {100 * statistics.fmean(saving.bests.values()):.1f} %"
    if saving.is_bound:
        return (
            f"Even the cheapest run of {label} reaches {what}, after {share}{so} ({seeds}); {best}."
        )
    return f"{label} reaches {what} after {share}{so} ({seeds}); {best}."
