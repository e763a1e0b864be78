"""Diagnosis of a training from the records of its epochs: each problem once, with what to change.

A rule is a function from the records so far and the facts of the training to a sentence, or None. Rules
wait until chance, a cold start or a warm-up cannot be the cause, since a warning that is often wrong is
ignored. They read the keys of `metrics.jsonl` (rela.training.epoch_log).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from rela.data.beton.reader import Beton
from rela.data.ffcv_format import MODE_JPEG
from rela.errors import WARNING
from rela.evaluation.metrics import chance_level
from rela.representations.quality import sample_rows
from rela.training.handover import AdaptiveHandOver

Record = dict[str, Any]

_LEAST_STD, _LEAST_RANK = 0.02, 1.1  # two images' features then have a cosine above 0.9996
_LONGEST_WAIT_SHARE, _SHORT_SECONDS, _LONG_SECONDS = 0.2, 20.0, 600.0
_NOTHING_LEARNED, _FEWEST_STAGE1_STEPS = 0.99, 200
_FEWEST_EPOCHS, _FEWEST_STEPS, _EPOCHS_AT_CHANCE = 5, 300, 3
_LEAST_TARGET_STD = 1e-3  # of targets that are scaled to 1
_SAMPLED_TARGETS = 1024
_STILL_FALLING = 0.05  # of what stage 1 has learned, 1 − loss, within one epoch


@dataclass(frozen=True)
class Facts:
    """Facts that the rules use besides the records; the defaults cause no warning.

    - `largest_class`: share of the images in the largest class; None without labels;
    - `longer_side_pixels`: median of the stored images; `has_jpegs`: whether any has to be decoded;
    - `target_std`: mean standard deviation of the targets' components; None without stage 1.
    """

    method: str
    num_steps: int
    images_per_epoch: int
    lr: float
    image_size: int
    is_adaptive: bool = False
    warmup_epochs: int = 0
    num_cores: int = 1
    largest_class: float | None = None
    longer_side_pixels: int = 0
    has_jpegs: bool = False
    target_std: float | None = None


class Diagnosis:
    """Reports each problem once; `records`: those of earlier epochs, if the run was resumed."""

    def __init__(
        self, facts: Facts, say: Callable[[str], None], records: Sequence[Record] = ()
    ) -> None:
        self.facts, self.say = facts, say
        self.records = list(records)
        self.found: set[str] = set()

    def begin(self) -> None:
        """Check the facts before the first step."""
        self._warn("targets", constant_targets(self.facts))
        if not self.records:
            self._warn("hand-over", too_short_for_handover(self.facts))

    def add(self, record: Record) -> None:
        """Check the rules at the end of an epoch."""
        self.records.append(record)
        for name, rule in RULES.items():
            if name not in self.found:
                self._warn(name, rule(self.records, self.facts))

    def _warn(self, name: str, sentence: str | None) -> None:
        if sentence is not None:
            self.found.add(name)
            self.say(f"{WARNING}{sentence}")


def constant_targets(facts: Facts) -> str | None:
    """Stage 1 would learn one vector for all images."""
    if facts.target_std is None or facts.target_std >= _LEAST_TARGET_STD:
        return None
    return (
        f"the targets hardly vary (standard deviation {facts.target_std:.1g}, expected 1): stage 1 has "
        "nothing to learn from them; embed another --prior, and look at `rela priors rank`"
    )


def too_short_for_handover(facts: Facts) -> str | None:
    """The adaptive rule takes some hundred steps even if the loss never falls."""
    fewest = AdaptiveHandOver().steps_left(1.0)
    if not facts.is_adaptive or facts.num_steps >= fewest:
        return None
    return (
        f"the adaptive hand-over needs {fewest} steps or more, and this run has {facts.num_steps}: "
        f"{facts.method} will never run; give more --epochs, or --handover 0.5"
    )


def no_handover(records: Sequence[Record], facts: Facts) -> str | None:
    """The hand-over comes too late even if the loss stays; a falling loss delays it further."""
    last = records[-1]
    earliest = last.get("earliest_handover_step")
    if not facts.is_adaptive or last["stage"] != 1 or earliest is None:
        return None
    if earliest <= facts.num_steps:
        return None
    if last["step"] >= facts.num_steps:
        return (
            f"no hand-over within {facts.num_steps} steps: {facts.method} never ran; give more "
            "--epochs, or --handover 0.5"
        )
    return (
        f"at the present loss the adaptive hand-over comes at step {earliest}, later if it falls on, and "
        f"this run has {facts.num_steps}: {facts.method} will never run; give more --epochs, or "
        "--handover 0.5"
    )


def early_handover(records: Sequence[Record], facts: Facts) -> str | None:
    """The adaptive rule, which compares averages over fixed numbers of steps, fired while the loss fell."""
    if not facts.is_adaptive or records[-1]["stage"] == 1:
        return None
    losses = [r["loss"] for r in records if r["stage"] == 1]
    if len(losses) < 2 or losses[-2] - losses[-1] <= _STILL_FALLING * (1 - losses[-1]):
        return None
    return (
        f"the adaptive rule ended stage 1 at step {records[-1]['handover_step']} of {facts.num_steps} while "
        f"its loss still fell ({losses[-2]:.3f}, then {losses[-1]:.3f} in its last full epoch): it waits "
        "for a number of steps, not for the model; choose --handover 0.5 or another fraction"
    )


def collapsed(records: Sequence[Record], facts: Facts) -> str | None:
    """Two consecutive epochs end with nearly equal features for all images."""
    last = records[-2:]
    if len(last) < 2 or not all(map(_is_collapsed, last)):
        return None
    if last[-1]["stage"] == 1:
        remedy = "check that the images differ"
    else:
        remedy = "enlarge --batch-size, or choose another --method"
    return (
        f"the features have collapsed: all images look the same to the model (feature_std "
        f"{last[-1]['feature_std']:.3f}, effective rank {last[-1]['effective_rank']:.1f}, "
        f"{_epochs(last)}); lower --lr (it is {facts.lr:g}), or {remedy}"
    )


def _is_collapsed(record: Record) -> bool:
    std, rank = record.get("feature_std", 1.0), record.get("effective_rank", math.inf)
    return bool(std < _LEAST_STD or rank < _LEAST_RANK)


def starved(records: Sequence[Record], facts: Facts) -> str | None:
    """Data loading is too slow, for longer than a cold start."""
    last = _trailing(records, lambda r: r["data_wait_share"] > _LONGEST_WAIT_SHARE)
    warm = [r for r in last if r["epoch"] > 0]
    seconds = sum(r["epoch_seconds"] for r in last)
    if seconds < _LONG_SECONDS and (len(warm) < 2 or seconds < _SHORT_SECONDS):
        return None
    waited = sum(r["data_wait_share"] * r["epoch_seconds"] for r in last)
    remedies = ["give the job more CPU cores"]
    if facts.longer_side_pixels > 2 * facts.image_size:
        remedies.append(f"convert again with --max-side {2 * facts.image_size}")
    if facts.has_jpegs:
        remedies.append("convert again with --write-mode raw, which needs no decoding")
    return (
        f"waiting for images took {100 * waited / seconds:.0f} % of {_epochs(last)} with "
        f"{facts.num_cores} CPU core{'s' * (facts.num_cores > 1)}; {', or '.join(remedies)}"
    )


def not_learning(records: Sequence[Record], facts: Facts) -> str | None:
    """Predictions stay orthogonal to their targets for whole epochs of stage 1."""
    last = _trailing(
        records,
        lambda r: (
            r["stage"] == 1 and r["loss"] > _NOTHING_LEARNED and r["epoch"] >= facts.warmup_epochs
        ),
    )
    before = records[-len(last) - 1]["step"] if len(last) < len(records) else 0
    if len(last) < 2 or last[-1]["step"] - before < _FEWEST_STAGE1_STEPS:
        return None
    return (
        f"the stage-1 loss does not fall ({last[-1]['loss']:.3f}, {_epochs(last)}; 1 is chance): change "
        f"--lr (it is {facts.lr:g}), try --head learned, or embed another --prior (`rela priors rank`)"
    )


def at_chance(records: Sequence[Record], facts: Facts) -> str | None:
    """The online classifier is at chance level several epochs after the start."""
    last, chance = records[-_EPOCHS_AT_CHANCE:], facts.largest_class
    enough = records[-1]["epoch"] + 1 >= _FEWEST_EPOCHS and records[-1]["step"] >= _FEWEST_STEPS
    if chance is None or not enough or len(last) < _EPOCHS_AT_CHANCE:
        return None
    limit = chance_level(chance, facts.images_per_epoch)
    if limit >= 1 or not all(r.get("online_accuracy", 1.0) <= limit for r in last):
        return None
    return (
        f"the online accuracy stays at chance ({100 * last[-1]['online_accuracy']:.1f} %, {_epochs(last)}; "
        f"the largest class has {100 * chance:.1f} %): the features do not tell the classes apart; check "
        f"that the folders are classes, train longer, or change --lr (it is {facts.lr:g})"
    )


RULES: dict[str, Callable[[Sequence[Record], Facts], str | None]] = {
    "hand-over": no_handover,
    "early hand-over": early_handover,
    "collapse": collapsed,
    "loading": starved,
    "stage 1": not_learning,
    "accuracy": at_chance,
}


def facts_of_images(beton: Beton, num_classes: int) -> dict[str, Any]:
    """The fields of Facts that depend on the images; `num_classes` 0 without labels."""
    largest = None
    if num_classes > 1:
        known = beton.labels[beton.labels >= 0]
        largest = float(np.bincount(known, minlength=1).max()) / len(beton)
    return {
        "largest_class": largest,
        "longer_side_pixels": int(np.median(np.maximum(beton.heights, beton.widths))),
        "has_jpegs": bool((beton.modes == MODE_JPEG).any()),
    }


def target_std(values: Tensor) -> float:
    """Mean over the components of targets [N, d] of their standard deviation, from a sample of rows."""
    rows = values[sample_rows(len(values), _SAMPLED_TARGETS)].double()
    return float(rows.std(dim=0, correction=0).mean())


def diverged(
    stage: int, loss: float, step: int, lr: float, precision: str, views: Sequence[Tensor]
) -> str:
    """The message of DivergedError; `views`: uint8 [B, 3, S, S], of the step's last micro-batch."""
    if all(bool((view == view[:1]).all()) for view in views):
        # every batch norm multiplies gradients by 1/√ε where its inputs do not vary
        advice = "the images of its batch all look alike; check that the images differ"
    else:
        advice = f"start again with a lower --lr (it is {lr:g})"
        if "16" in precision:
            advice += f", or with --precision 32-true (it is {precision})"
    return f"the stage-{stage} loss became {loss} at step {step}; {advice}"


def _trailing(records: Sequence[Record], holds: Callable[[Record], bool]) -> list[Record]:
    """The longest run of records at the end for which `holds` is true."""
    first = len(records)
    while first and holds(records[first - 1]):
        first -= 1
    return list(records[first:])


def _epochs(records: Sequence[Record]) -> str:
    first, last = records[0]["epoch"] + 1, records[-1]["epoch"] + 1
    return f"epoch {last}" if first == last else f"epochs {first} to {last}"
