"""A finished run, as far as a report is interested in it."""

from dataclasses import dataclass
from typing import Any

from pipeline.artifact import Artifact
from pipeline.fingerprint import fingerprint
from rela.epoch_records import read_records
from rela.run_directory import METRICS_FILE
from stages.fit_run import WHERE_FIELDS
from stages.measurements import EVALUATION_FILE, EVALUATION_FORM
from stages.run_files import COST_FILE, COST_FORM, read_json

NO_PRIOR = "none"
# what makes a line of the comparison: training with this prior in this way, at any budget and seed
_OF_PRIOR = ("prior", "crops", "target_width", "handover", "head")
_OF_BUDGET = ("epochs", "data_ratio", "seed")
_BEFORE_TRAINING = ("convert", "embed", "combine", "targets", "startup")


@dataclass(frozen=True)
class RunRecord:
    """What `run` is, what it cost and how good it became.

    - `experiment`: equal for runs that may be compared: the same data and settings, but for prior, budget
      and seed; `line`: equal for those that differ in budget and seed alone;
    - `epochs`: the records of `metrics.jsonl`; `seconds`: the ledger by phase;
    - `accuracies`: top-1 in [0, 1] by protocol;
    - `num_images_seen`: by training, and by the prior when it embedded them.
    """

    run: Artifact
    experiment: str
    line: str
    prior: str
    seed: int
    budget: tuple[int, float]
    epochs: list[dict[str, Any]]
    seconds: dict[str, float]
    total_seconds: float
    accuracies: dict[str, float]
    num_images_seen: int
    num_images_embedded: int

    @property
    def name(self) -> str:
        """The run's."""
        return self.run.name

    @property
    def is_baseline(self) -> bool:
        """Whether it learned without a prior."""
        return self.prior == NO_PRIOR

    def course(self, measure: str, cost: str) -> tuple[list[float], list[float]]:
        """(costs, values) after every epoch that has `measure`; `cost` is "seconds" or "images".

        What came before the first epoch is paid before it, all else in proportion to the epochs' own
        seconds, so that the last cost is the whole run's.
        """
        own = [float(record["epoch_seconds"]) for record in self.epochs]
        before = sum(self.seconds.get(phase, 0.0) for phase in _BEFORE_TRAINING)
        per_second = (self.total_seconds - before) / (sum(own) or 1.0)
        batch_size = self.run.manifest.parameters["batch_size"]
        costs, values, spent = [], [], before
        for seconds, record in zip(own, self.epochs, strict=True):
            spent += seconds * per_second
            if record.get(measure) is not None:
                images = record["step"] * batch_size + self.num_images_embedded
                costs.append(spent if cost == "seconds" else float(images))
                values.append(float(record[measure]))
        return costs, values


def record_of(run: Artifact) -> RunRecord:
    """Everything from the run's own directory; what is missing there is left empty."""
    parameters, content = run.manifest.parameters, run.manifest.content
    prior = content["prior"] or NO_PRIOR
    left_out = {*_OF_PRIOR, *_OF_BUDGET, *WHERE_FIELDS}
    common = {k: v for k, v in parameters.items() if k not in left_out}
    experiment = fingerprint([run.manifest.inputs["dataset"], common])
    of_prior = {k: parameters[k] for k in _OF_PRIOR} if prior != NO_PRIOR else NO_PRIOR
    costs = read_json(run.path / COST_FILE, COST_FORM)
    evaluation = read_json(run.path / EVALUATION_FILE, EVALUATION_FORM)
    embedded = _num_embedded(run)
    return RunRecord(
        run=run,
        experiment=experiment,
        line=fingerprint([experiment, of_prior]),
        prior=prior,
        seed=parameters["seed"],
        budget=(parameters["epochs"], parameters["data_ratio"]),
        epochs=_epochs(run),
        seconds=costs.get("seconds", {}),
        total_seconds=float(costs.get("total_seconds", 0.0)),
        accuracies={
            protocol: float(figures["top1"])
            for protocol, figures in evaluation.get("accuracies", {}).items()
            if "top1" in figures
        },
        num_images_seen=content["num_steps"] * parameters["batch_size"] + embedded,
        num_images_embedded=embedded,
    )


def _num_embedded(run: Artifact) -> int:
    """Images that the prior looked at: every one, once or once for each of its crops."""
    if run.manifest.content["prior"] is None:
        return 0
    return int(run.manifest.content.get("num_images", 0)) * max(
        1, run.manifest.parameters["crops"] or 0
    )


def _epochs(run: Artifact) -> list[dict[str, Any]]:
    return read_records(run.path / METRICS_FILE)
