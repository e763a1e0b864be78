"""What the workspace knows about speed: seconds per image of every stage, from manifests and ledgers."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from rela.pipeline.artifact import Artifact
from rela.stages.workspace.evaluations import EVALUATION_FILE, EVALUATION_FORM
from rela.stages.workspace.run import read_json, seconds_by_phase
from rela.stages.workspace.workspace import Workspace, find_artifacts

EmbedKey = tuple[str, int]
TrainKey = tuple[str, int, str, int]


@dataclass
class Rate:
    """Seconds over images, summed over artifacts; `names` of those it was measured on."""

    seconds: float = 0.0
    num_images: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, seconds: float | None, num_images: int, name: str) -> None:
        """Count one more artifact, unless it did nothing."""
        if seconds and num_images:
            self.seconds += seconds
            self.num_images += num_images
            self.names.append(name)

    @property
    def seconds_per_image(self) -> float | None:
        """None if nothing was measured."""
        return self.seconds / self.num_images if self.num_images else None

    @property
    def basis(self) -> str:
        """Where it was measured."""
        more = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        return f"{self.names[0]}{more}" if self.names else "nothing"


@dataclass
class TrainRates:
    """Of runs that are alike: per image of each stage and of waiting for data, per run the rest."""

    stages: dict[int, Rate] = field(default_factory=lambda: {1: Rate(), 2: Rate()})
    wait: Rate = field(default_factory=Rate)
    overhead_seconds: list[float] = field(default_factory=list)
    handover_steps: list[int] = field(default_factory=list)

    @property
    def overhead(self) -> float:
        """Starting, checkpoints, exporting: seconds of a typical run."""
        return statistics.median(self.overhead_seconds) if self.overhead_seconds else 0.0


@dataclass
class Rates:
    """By what decides the speed: prior and input size; model, input size, method and batch."""

    convert: Rate = field(default_factory=Rate)
    embed: dict[EmbedKey, Rate] = field(default_factory=lambda: defaultdict(Rate))
    train: dict[TrainKey, TrainRates] = field(default_factory=lambda: defaultdict(TrainRates))
    evaluate: dict[EmbedKey, Rate] = field(default_factory=lambda: defaultdict(Rate))


def measured_rates(workspace: Workspace) -> Rates:
    """Everything that was made in the workspace, wherever; an artifact's own seconds count."""
    rates = Rates()
    sizes = {}
    for dataset in find_artifacts(workspace.datasets_dir):
        splits = dataset.manifest.content["splits"].values()
        sizes[dataset.name] = sum(split["num_images"] for split in splits)
        rates.convert.add(_seconds(dataset), sizes[dataset.name], f"data set {dataset.name}")
    for made in find_artifacts(workspace.representations_dir):
        prior = made.manifest.content["prior"]
        if "arch" in prior:  # a combination of priors was not embedded as one
            key = prior["arch"], prior["image_size"]
            rates.embed[key].add(_seconds(made), made.manifest.content["shape"][0], made.name)
    for run in workspace.runs():
        _add_run(rates, run)
        evaluation = read_json(run.path / EVALUATION_FILE, EVALUATION_FORM)
        num_images = sizes.get(run.manifest.content["dataset"], 0)
        parameters = run.manifest.parameters
        rates.evaluate[parameters["model"], parameters["image_size"]].add(
            evaluation.get("seconds"), num_images, f"evaluation of {run.name}"
        )
    return rates


def _add_run(rates: Rates, run: Artifact) -> None:
    parameters, content = run.manifest.parameters, run.manifest.content
    seconds = seconds_by_phase(run.path)
    found = rates.train[train_key(parameters)]
    batch, num_steps = parameters["batch_size"], content["num_steps"]
    handover = content["handover_step"]
    stage1_steps = 0 if content["prior"] is None else num_steps if handover is None else handover
    name = f"run {run.name}"
    found.stages[1].add(seconds.get("stage1"), stage1_steps * batch, name)
    found.stages[2].add(seconds.get("stage2"), (num_steps - stage1_steps) * batch, name)
    found.wait.add(seconds.get("data_wait"), num_steps * batch, name)
    rest = ("startup", "checkpoint", "other")
    found.overhead_seconds.append(sum(seconds.get(phase, 0.0) for phase in rest))
    if handover is not None and parameters["handover"] is None:
        found.handover_steps.append(handover)


def train_key(parameters: dict[str, Any]) -> TrainKey:
    """What decides the seconds per image of a training."""
    return (
        parameters["model"], parameters["image_size"], parameters["method"],
        parameters["batch_size"],
    )  # fmt: skip


def _seconds(artifact: Artifact) -> float | None:
    seconds: float | None = artifact.manifest.provenance.get("seconds")
    return seconds
