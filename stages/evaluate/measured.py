"""The measurements of one model on one data set: those that exist, and those to make."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rela.evaluation.protocols import PROTOCOLS, Protocol
from rela.pipeline.fingerprint import fingerprint
from rela.priors import PriorIdentity
from rela.priors.prior import Combination
from rela.result import Result
from rela.stages.embed.wanted import STAGE_VERSION as EMBED_VERSION
from rela.stages.evaluate.chance import Chance, chance_of
from rela.stages.evaluate.probing import Probing
from rela.stages.evaluate.speed import Speed
from rela.stages.settings import EmbedSettings, EvaluateSettings
from rela.stages.workspace.dataset import Coverage
from rela.stages.workspace.evaluations import FIRST_SEED, Measurements
from rela.stages.workspace.workspace import slug

STAGE_VERSION = 2


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """The requested part of `eval.json` at `path` (see rela.stages.workspace.evaluations).

    - `cached`: all results existed;
    - `run`: its name; `parameters`: its settings; `prior_name`: the prior that it learned from;
    - `chance`: what chance reaches on the validation images; None without labels;
    - `coverage`: how many classes these images cover; likewise;
    - `prior`: the evaluation of that prior by the same probes, or `without_prior`: why there is none;
    - `speed`: of the model on this machine, or why it is not known; only of priors and their students;
    - `embed_seconds`: of a prior, what embedding the training images took.
    """

    path: Path
    results: dict[str, Any]
    cached: bool
    run: str | None = None
    parameters: dict[str, Any] | None = None
    prior_name: str | None = None
    chance: Chance | None = None
    coverage: Coverage | None = None
    prior: "Evaluation | None" = None
    without_prior: str | None = None
    speed: Speed | str | None = None
    embed_seconds: float | None = None

    def figures(self) -> dict[str, str]:
        """The leading figure of each protocol by its title, shares in percent."""
        found = {}
        for name, accuracies in self.results["accuracies"].items():
            measure = PROTOCOLS[name].measures[0]
            value = accuracies[measure.key]
            found[PROTOCOLS[name].title] = (
                f"{100 * value:.1f} %" if measure.is_share else str(value)
            )
        return found

    def shown(self) -> dict[str, Any]:
        """The run or the prior, the leading figure of each protocol, and the chance level."""
        chance = None if self.chance is None else f"{100 * self.chance.top1:.1f} %"
        return {
            "prior" if self.run is None else "run": self.run or self.results["evaluated"],
            "data set": self.results["dataset"],
            **self.figures(),
            "chance": chance,
            "path": self.path,
        }


def chosen_protocols(settings: EvaluateSettings) -> list[Protocol]:
    """The requested protocols, each once, with the number of classes from the settings."""
    chosen = [PROTOCOLS[name] for name in dict.fromkeys(settings.protocol)]
    classes: dict[str, Any] = {"num_classes": settings.voc_classes}
    return [replace(p, **classes) if p.data == "voc" else p for p in chosen]


def measured(
    probing: Probing,
    identity: PriorIdentity | Combination,
    name: str,
    dataset: tuple[str | None, str | None],
    protocols: Iterable[Protocol],
    num_seeds: int,
    path: Path | None = None,
) -> Evaluation:
    """Measure the model called `name`, with this identity, and keep the figures in `path`.

    `dataset`: name and fingerprint. The default path is a file of evaluations/ that is named after both.
    """
    dataset_name, dataset_key = dataset
    # features in another number format differ
    meaning = {"model": identity.key(), "dtype": probing.settings.dtype, "dataset": dataset_key}
    if probing.settings.precision != EmbedSettings.precision:
        meaning["precision"] = probing.settings.precision
    subject = fingerprint(meaning)
    if path is None:
        words = [dataset_name, slug(identity.name), subject[:12]]
        file = "-".join(word for word in words if word) + ".json"
        path = probing.workspace.evaluations_dir / file
    head = {
        "subject": subject,
        "evaluated": name,
        "dataset": dataset_name,
        "dataset_fingerprint": dataset_key,
        "identity": identity.as_dict(),
    }
    kept = Measurements(path, head)
    cached, seeds = True, {}
    voc_sha256 = None if probing.voc is None else probing.voc.digests()
    for protocol in protocols:
        data = {"voc": voc_sha256} if protocol.data == "voc" else {"embed": EMBED_VERSION}
        key = fingerprint(
            {
                "stage": "evaluate",
                "version": STAGE_VERSION,
                "subject": subject,
                "protocol": {"name": protocol.name, **asdict(protocol)},
                **data,
            }
        )
        seeds[protocol.name] = tuple(range(num_seeds)) if protocol.is_random else (FIRST_SEED,)
        for seed in seeds[protocol.name]:
            if not kept.has(protocol.name, key, seed):
                cached = False
                start = time.perf_counter()
                figures = probing.measure(protocol, seed)
                seconds = round(time.perf_counter() - start, 4)
                record = {"how": protocol.describe(figures), "settings": asdict(protocol)}
                kept.add(protocol.name, key, seed, record, {**figures, "seconds": seconds})
    measured_on = probing.dataset
    chance = None if measured_on is None else chance_of(measured_on)
    coverage = None if measured_on is None else measured_on.coverage()
    return Evaluation(path, kept.chosen(seeds), cached, chance=chance, coverage=coverage)
