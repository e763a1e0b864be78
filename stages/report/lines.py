"""The ways of training that a report compares: a name and a colour for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from rela.stages.evaluate.groups import applies, grouped, setting_in_words, varying
from rela.stages.report.run_record import RunRecord

# Okabe and Ito's palette for colour-blind readers; the second colour is for dark mode
_BASELINE_COLOUR = ("#8a8f98", "#9aa3ad")
_COLOURS = (
    ("#0072b2", "#56b4e9"), ("#d55e00", "#ff8c42"), ("#009e73", "#2fcf9f"), ("#b0578d", "#e39ac5"),
    ("#8c6d00", "#f0d84a"), ("#5e4fa2", "#a99cf0"), ("#7f3b08", "#d69a6a"),
)  # fmt: skip
_NAMED_FIRST = ("prior", "method", "model")
_BUDGET = ("epochs", "data_ratio")


@dataclass(frozen=True)
class Line:
    """Runs that differ only in budget and seed. `colour`, `dark_colour`: "#rrggbb"."""

    key: str
    label: str
    css_name: str
    is_baseline: bool
    colour: str
    dark_colour: str
    runs: list[RunRecord]


def lines_of(runs: Sequence[RunRecord]) -> list[Line]:
    """One line for each way of training, baselines first; labels name the settings that differ."""
    ordered = sorted(runs, key=lambda run: (not run.is_baseline, run.prior, run.name))
    groups = grouped(ordered, lambda run: run.line)
    differing = varying((vars(group[0].run.settings) for group in groups), _BUDGET)
    shown = [name for name in differing if name not in _NAMED_FIRST]
    found, numbers = [], {True: 0, False: 0}
    for group in groups:
        first = group[0]
        number, is_baseline = numbers[first.is_baseline], first.is_baseline
        numbers[is_baseline] += 1
        palette = (_BASELINE_COLOUR, *reversed(_COLOURS)) if is_baseline else _COLOURS
        colour, dark_colour = palette[number % len(palette)]
        label = _label(first, shown, "model" in differing)
        css_name = f"line-{first.line[:12]}"
        found.append(Line(first.line, label, css_name, is_baseline, colour, dark_colour, group))
    return found


def _label(run: RunRecord, shown: list[str], with_model: bool) -> str:
    settings = run.run.settings
    method = "stage 1 only" if settings.method == "none" else settings.method
    words = [method if run.is_baseline else f"{run.prior} → {method}"]
    if with_model:
        words.append(run.run.model)
    for key in shown:
        if applies(key, vars(settings)):
            words.append(setting_in_words(key, getattr(settings, key)))
    return ", ".join(word for word in words if word)
