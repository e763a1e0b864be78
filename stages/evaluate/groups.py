"""Groups of runs that differ only in their seed: grouping, varying settings, figures over seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rela.evaluation.protocols import all_measures
from rela.pipeline.fingerprint import canonical_json
from rela.stages.display import Spread
from rela.stages.evaluate.measured import Evaluation
from rela.stages.workspace.run import ITSELF, SEEDED
from rela.training.settings import WHERE_TO_RUN

_NOT_COMPARED = ("seed", *WHERE_TO_RUN)
_NAMED_FIRST = ("prior", "method", "model")
OF_PRIOR_ONLY = frozenset({"crops", "dense", "maps", "target_width", "handover", "head", "anchor"})

# by protocol, then by the measure's key
Spreads = dict[str, dict[str, Spread]]
Item = TypeVar("Item")


def applies(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting has an effect; those of stage 1 have none without a prior."""
    return settings.get("prior") != "none" or name not in OF_PRIOR_ONLY


def compared(settings: Mapping[str, Any], leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """The settings that affect a run's weights, without its seed and those in `leave_out`."""
    left_out = {*_NOT_COMPARED, *leave_out}
    return {name: value for name, value in settings.items() if name not in left_out}


def grouped(items: Iterable[Item], key: Callable[[Item], Any]) -> list[list[Item]]:
    """Group items whose `key` has the same JSON, in the order of each group's first item."""
    groups: dict[bytes, list[Item]] = {}
    for item in items:
        groups.setdefault(canonical_json(key(item)), []).append(item)
    return list(groups.values())


def varying(several: Iterable[Mapping[str, Any]], leave_out: Iterable[str] = ()) -> list[str]:
    """Names of the compared settings that have more than one value where they apply, sorted."""
    values: dict[str, set[str]] = {}
    for settings in several:
        for name, value in compared(settings, leave_out).items():
            if applies(name, settings):
                values.setdefault(name, set()).add(repr(value))
    return sorted(name for name, found in values.items() if len(found) > 1)


def told_apart(several: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each, the settings that differ between them: prior, method and model first."""
    differing = varying(several)
    first = [name for name in _NAMED_FIRST if name in differing]
    ordered = [*first, *(name for name in differing if name not in first)]
    return [{name: settings.get(name) for name in ordered} for settings in several]


def unlike(names: Mapping[str, str]) -> dict[str, str]:
    """Names by key; those that several keys share end with the beginning of their key."""
    known = list(names.values())
    return {k: name if known.count(name) == 1 else f"{name} {k[:8]}" for k, name in names.items()}


def in_words(settings: Mapping[str, Any]) -> str:
    """`prior resnet18, method byol, epochs 30`."""
    words = [
        setting_in_words(name, value) for name, value in settings.items() if applies(name, settings)
    ]
    return ", ".join(filter(None, words))


def setting_in_words(name: str, value: Any) -> str:
    """`epochs 30`; empty for the absence of something."""
    if name == "handover":
        return "adaptive hand-over" if value is None else f"hand-over {value:g}"
    if name == "init" and str(value).startswith((f"{ITSELF}#", f"{SEEDED}#")):
        return ""  # the model says it
    if name == "crops":
        return f"{value} crops" if value else ""
    return "" if value is None else f"{name.replace('_', ' ')} {value}"


def over_probe_seeds(evaluation: Evaluation) -> Spreads:
    """Mean and standard deviation of every measure over the probe seeds of one evaluation."""
    found = {}
    for protocol, record in evaluation.results["measurements"].items():
        by_seed = list(record["by_probe_seed"].values())
        found[protocol] = {
            measure.key: Spread.of([figures[measure.key] for figures in by_seed])
            for measure in all_measures()
            if all(measure.key in figures for figures in by_seed)
        }
    return found


def over_runs(evaluations: Sequence[Evaluation]) -> Spreads:
    """Mean and standard deviation over runs, where each run counts by its mean over probe seeds."""
    of_each = [over_probe_seeds(evaluation) for evaluation in evaluations]
    return {
        protocol: {
            key: Spread.of([found[protocol][key].mean for found in of_each])
            for key in measures
            if all(key in found[protocol] for found in of_each)
        }
        for protocol, measures in of_each[0].items()
    }
