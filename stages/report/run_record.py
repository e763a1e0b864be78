"""The facts of a finished run that a report shows."""

from dataclasses import dataclass, field
from typing import Any

from rela.pipeline.fingerprint import fingerprint
from rela.stages.evaluate.chance import chance_of
from rela.stages.evaluate.groups import compared
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import Run

NO_PRIOR = "none"
# settings of the prior: lines of one experiment differ in them
_OF_PRIOR = ("prior", "crops", "target_width", "handover", "head", "anchor")
_OF_BUDGET = ("epochs", "data_ratio")
_BEFORE_TRAINING = ("convert", "embed", "combine", "targets", "startup")


@dataclass(frozen=True)
class RunRecord:
    """Settings, cost and accuracy of `run`.

    - `experiment`: equal for comparable runs, which differ only in prior, budget and seed; `line`: equal
      for runs that differ only in budget and seed;
    - `epochs`: the records of `metrics.jsonl`; `seconds`: by phase;
    - `accuracies`: top-1 in [0, 1] by protocol;
    - `by_chance`: the accuracy that chance may reach, by split ("train", "val"); empty if unknown;
    - `num_images_seen`: in training and in embedding.
    """

    run: Run
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
    by_chance: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.run.name

    @property
    def is_baseline(self) -> bool:
        """Whether it was trained without a prior."""
        return self.prior == NO_PRIOR

    def course(self, measure: str, cost: str) -> tuple[list[float], list[float]]:
        """(costs, values) after every epoch that has `measure`; `cost` is "seconds" or "images".

        The cost of everything before training counts before the first epoch. The rest is spread over the
        epochs in proportion to their seconds, so that the last cost is that of the whole run.
        """
        own = [float(record["epoch_seconds"]) for record in self.epochs]
        before = sum(self.seconds.get(phase, 0.0) for phase in _BEFORE_TRAINING)
        per_second = (self.total_seconds - before) / (sum(own) or 1.0)
        batch_size = self.run.settings.batch_size
        costs, values, spent = [], [], before
        for seconds, record in zip(own, self.epochs, strict=True):
            spent += seconds * per_second
            if record.get(measure) is not None:
                images = record["step"] * batch_size + self.num_images_embedded
                costs.append(spent if cost == "seconds" else float(images))
                values.append(float(record[measure]))
        return costs, values


def record_of(run: Run, dataset: DataSet | None = None) -> RunRecord:
    """Read the run's directory, and class sizes from the data set; missing facts stay empty."""
    parameters = vars(run.settings)
    prior = run.content.prior or NO_PRIOR
    common = compared(parameters, (*_OF_PRIOR, *_OF_BUDGET))
    experiment = fingerprint([run.dataset_fingerprint, common])
    of_prior = {k: parameters[k] for k in _OF_PRIOR} if prior != NO_PRIOR else NO_PRIOR
    return RunRecord(
        run=run,
        experiment=experiment,
        line=fingerprint([experiment, of_prior]),
        prior=prior,
        seed=run.settings.seed,
        budget=(run.settings.epochs, run.settings.data_ratio),
        epochs=run.records,
        seconds=run.seconds_by_phase,
        total_seconds=run.total_seconds or 0.0,
        accuracies={
            protocol: figures["top1"]
            for protocol, figures in run.evaluation.accuracies.items()
            if "top1" in figures
        },
        num_images_seen=run.num_images_seen,
        num_images_embedded=run.num_images_embedded,
        by_chance={} if dataset is None else _by_chance(dataset),
    )


def _by_chance(dataset: DataSet) -> dict[str, float]:
    found = {split: chance_of(dataset, split) for split in dataset.splits}
    return {split: chance.limit for split, chance in found.items() if chance is not None}
