"""Speeds measured in a workspace: seconds per image of every stage, from manifests and cost files."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from rela.priors import PriorIdentity
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

EmbedKey = tuple[str, int]
TrainKey = tuple[str, int, str, int]


@dataclass
class Rate:
    """Seconds per image over several artifacts; `names` are those of the artifacts."""

    seconds: float = 0.0
    num_images: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, seconds: float | None, num_images: int, name: str) -> None:
        """Add an artifact, unless it has no seconds or images."""
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
        """The artifacts on which it was measured, in words."""
        more = f" and {len(self.names) - 1} like it" if len(self.names) > 1 else ""
        return f"{self.names[0]}{more}" if self.names else "nothing"


@dataclass
class TrainRates:
    """Rates of similar runs: each stage and waiting for data per image, the rest per run."""

    stages: dict[int, Rate] = field(default_factory=lambda: {1: Rate(), 2: Rate()})
    wait: Rate = field(default_factory=Rate)
    overhead_seconds: list[float] = field(default_factory=list)
    handover_steps: list[int] = field(default_factory=list)

    @property
    def overhead(self) -> float:
        """Seconds of starting, checkpoints and exporting in a typical run."""
        return statistics.median(self.overhead_seconds) if self.overhead_seconds else 0.0


@dataclass
class Rates:
    """Rates by what decides the speed: prior and input size; model, input size, method and batch."""

    convert: Rate = field(default_factory=Rate)
    embed: dict[EmbedKey, Rate] = field(default_factory=lambda: defaultdict(Rate))
    train: dict[TrainKey, TrainRates] = field(default_factory=lambda: defaultdict(TrainRates))
    evaluate: dict[EmbedKey, Rate] = field(default_factory=lambda: defaultdict(Rate))


def measured_rates(workspace: Workspace) -> Rates:
    """Rates of everything made in the workspace, on any machine, from each artifact's own seconds."""
    rates = Rates()
    sizes = {}
    for dataset in workspace.datasets():
        sizes[dataset.name] = dataset.num_images()
        rates.convert.add(dataset.spent.seconds, sizes[dataset.name], f"data set {dataset.name}")
    for made in workspace.representations():
        prior = made.prior
        if isinstance(prior, PriorIdentity):  # a combination is embedded component by component
            rates.embed[prior.arch, prior.image_size].add(
                made.spent.seconds, made.content.shape[0], made.name
            )
    for run in workspace.runs():
        _add_run(rates, run)
        rates.evaluate[run.model, run.image_size].add(
            run.evaluation.seconds, sizes.get(run.content.dataset, 0), f"evaluation of {run.name}"
        )
    return rates


def _add_run(rates: Rates, run: Run) -> None:
    seconds = run.seconds_by_phase
    found = rates.train[train_key(run.settings)]
    batch, num_steps = run.settings.batch_size, run.content.num_steps
    handover = run.content.handover_step
    stage1_steps = 0 if run.content.prior is None else num_steps if handover is None else handover
    name = f"run {run.name}"
    found.stages[1].add(seconds.get("stage1"), stage1_steps * batch, name)
    found.stages[2].add(seconds.get("stage2"), (num_steps - stage1_steps) * batch, name)
    found.wait.add(seconds.get("data_wait"), num_steps * batch, name)
    rest = ("startup", "checkpoint", "other")
    found.overhead_seconds.append(sum(seconds.get(phase, 0.0) for phase in rest))
    if handover is not None and run.settings.handover is None:
        found.handover_steps.append(handover)


def train_key(settings: TrainSettings) -> TrainKey:
    """The settings that decide the seconds per image of a training."""
    return (
        str(settings.model), settings.image_size or 0, settings.method, settings.batch_size,
    )  # fmt: skip
