"""`eval.json`: the measurements of one model on one data set, kept between calls.

subject        fingerprint of the model and the data set; a new one empties the file
accuracies     by protocol: figures of probe seed 0 (a summary of the next, for readers)
measurements   by protocol: `how` in words, its `settings`, its own `fingerprint`, and
               `by_probe_seed`: the figures of each probe seed, and their `seconds`
               (computing features, for the first that needs them, included)
seconds        total, replaced measurements included
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Required, TypedDict

from msgspec import Struct

from rela.evaluation.protocols import LAST_EPOCHS, all_measures
from rela.pipeline.files import clear_abandoned_files, write_atomic
from rela.stages.workspace.schema import Float, fits, read_json

EVALUATION_FILE = "eval.json"
FIRST_SEED = 0


if TYPE_CHECKING:
    Figures = dict[str, Any]
else:  # what one protocol found: its measures are numbers
    _NUMBERS = dict.fromkeys([*(measure.key for measure in all_measures()), *LAST_EPOCHS], Float)
    Figures = TypedDict("Figures", {"seconds": Required[Float], **_NUMBERS}, total=False)


class _Measurement(Struct, frozen=True):
    fingerprint: str
    how: str
    by_probe_seed: dict[str, Figures]


class EvaluationFile(Struct, frozen=True):
    """The entries that are read of an `eval.json`; `measurements` are for `Measurements`."""

    subject: str
    seconds: Float
    accuracies: dict[str, Figures]
    measurements: dict[str, _Measurement]


def read_evaluation(path: Path) -> EvaluationFile:
    """The evaluation in `path`; an empty one if it is missing or damaged."""
    empty = EvaluationFile(subject="", seconds=0.0, accuracies={}, measurements={})
    return read_json(path, EvaluationFile) or empty


@dataclass(frozen=True)
class Measurements:
    """An `eval.json`; `head`: the entries that describe the model and data set, with `subject`."""

    path: Path
    head: dict[str, Any]

    def read(self) -> dict[str, Any]:
        """Its content; an empty one if it is missing, damaged or of another subject."""
        found = read_json(self.path, dict[str, Any]) or {}
        if found.get("subject") == self.head["subject"] and fits(found, EvaluationFile):
            return {**found, **self.head}
        return {**self.head, "seconds": 0.0, "accuracies": {}, "measurements": {}}

    def has(self, protocol: str, key: str, seed: int) -> bool:
        """Whether this probe seed was measured with settings of this fingerprint."""
        record = self.read()["measurements"].get(protocol, {})
        return record.get("fingerprint") == key and str(seed) in record["by_probe_seed"]

    def add(
        self, protocol: str, key: str, seed: int, record: dict[str, Any], found: dict[str, Any]
    ) -> None:
        """Add a measurement; those of the same protocol with other settings are dropped."""
        content = self.read()
        known = content["measurements"].get(protocol, {})
        by_seed = known["by_probe_seed"] if known.get("fingerprint") == key else {}
        by_seed = {**by_seed, str(seed): found}
        content["measurements"][protocol] = {
            "fingerprint": key, **record, "by_probe_seed": by_seed,
        }  # fmt: skip
        if seed == FIRST_SEED:
            content["accuracies"][protocol] = found
        content["seconds"] = round(content["seconds"] + found["seconds"], 4)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        clear_abandoned_files(self.path.parent)
        write_atomic(self.path, json.dumps(content, indent=1).encode())

    def chosen(self, seeds: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        """The content, restricted to these protocols and probe seeds."""
        content = self.read()
        measurements = content["measurements"]
        chosen = {
            name: {
                **measurements[name],
                "by_probe_seed": {
                    str(s): measurements[name]["by_probe_seed"][str(s)] for s in of_name
                },
            }
            for name, of_name in seeds.items()
        }
        accuracies = {name: chosen[name]["by_probe_seed"][str(FIRST_SEED)] for name in seeds}
        return {**content, "accuracies": accuracies, "measurements": chosen}
