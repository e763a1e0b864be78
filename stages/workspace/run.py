"""A run: its configuration, its cost, and the progress of an unfinished one."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from msgspec import Struct, to_builtins

from rela.errors import ChoiceError
from rela.options import check_options, option_words
from rela.pipeline.artifact import Artifact
from rela.pipeline.errors import CorruptArtifactError
from rela.pipeline.files import write_atomic
from rela.pipeline.manifest import remedy
from rela.priors.earlier_run import BACKBONE_FILE, IDENTITY_FILE
from rela.result import Result
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.evaluations import EVALUATION_FILE, EvaluationFile, read_evaluation
from rela.stages.workspace.representations import Representations, Targets
from rela.stages.workspace.schema import (
    Float,
    Int,
    Timing,
    as_fields,
    as_type,
    checked_manifest,
    load_json,
    read_json,
)
from rela.training.run_directory import METRICS_FILE, read_records
from rela.training.settings import WHERE_TO_RUN, TrainSettings

ITSELF, SEEDED = "itself", "seeded"  # in `init`: a network's own weights, given or by the seed
CONFIG_FILE, COST_FILE, LOCK_FILE = "config.json", "cost.json", ".lock"
DIGESTED_FILES = (BACKBONE_FILE, IDENTITY_FILE, CONFIG_FILE, METRICS_FILE, COST_FILE)


class DataSetReference(Struct, frozen=True):
    """The data set of a run."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Config:
    """A run's inputs and settings, resolved before it begins: its `config.json`.

    `representations`: their name, None without a prior. `precision`: that of `settings`, with "auto"
    resolved on the machine where the run begins. `extends`: fingerprint of the run whose last
    checkpoint it begins with, if any. `maps`: fingerprint of the maps of --dense, if any.
    """

    fingerprint: str
    dataset: DataSetReference
    settings: TrainSettings
    representations: str | None
    precision: str = "auto"
    extends: str | None = None
    maps: str | None = None

    def write(self, directory: Path) -> None:
        """Write `config.json`; raises StorageError."""
        write_atomic(directory / CONFIG_FILE, json.dumps(to_builtins(self), indent=1).encode())


class _Resolved(Struct, frozen=True):
    """Settings that have a value in every configuration."""

    model: str
    image_size: Int
    hyperparameters: str
    optimizer: str
    lr: Float
    weight_decay: Float
    schedule: str
    warmup_epochs: Int


class _ConfigFile(Struct, frozen=True):
    fingerprint: str
    dataset: DataSetReference
    settings: dict[str, Any]
    representations: str | None
    precision: str
    extends: str | None = None
    maps: str | None = None


def read_config(directory: Path) -> Config:
    """A run's `config.json`; raises CorruptArtifactError if it is missing or damaged."""
    path = directory / CONFIG_FILE
    try:
        found = load_json(path, _ConfigFile)
        as_type(found.settings, _Resolved, "settings")
        settings = as_fields(found.settings, TrainSettings, "settings")
        if unknown := found.settings.keys() - vars(settings):
            raise ValueError(f"settings: unknown entry {min(unknown)!r}")
        check_options(settings)
        check_options(replace(settings, precision=found.precision))
    except (OSError, ValueError, ChoiceError) as error:
        raise CorruptArtifactError(f"{path} is damaged ({error}); {remedy(directory)}") from error
    return Config(
        found.fingerprint, found.dataset, settings, found.representations, found.precision,
        found.extends, found.maps,
    )  # fmt: skip


class RunContent(Struct, frozen=True):
    """What a training came to.

    - `dataset`: its name at the time; `prior`: its name, None without one;
    - `handover_step`: first step of stage 2; None if there was no prior, or stage 1 did not end;
    - `num_steps`: of both stages; `online_accuracy`: of the last epoch in [0, 1], if there is one;
    - `snapshot_of`: the unfinished run whose checkpoint this is, after `epochs_done` epochs.
    """

    dataset: str
    prior: str | None
    handover_step: Int | None
    num_steps: Int
    num_images: Int = 0
    online_accuracy: Float | None = None
    snapshot_of: str | None = None
    epochs_done: Int | None = None


class _Inputs(Struct, frozen=True):
    dataset: str
    images: str


class _Parameters(Struct, frozen=True):
    """Settings that the manifest of every version has."""

    model: str
    image_size: Int
    method: str
    epochs: Int
    batch_size: Int
    seed: Int
    data_ratio: Float
    handover: Float | None


class _Manifest(Struct, frozen=True):
    content: RunContent
    inputs: _Inputs
    parameters: dict[str, Any]
    provenance: Timing

    def __post_init__(self) -> None:
        as_type(self.parameters, _Parameters, "parameters")
        as_fields(self.parameters, TrainSettings, "parameters")


class _Cost(Struct, frozen=True):
    seconds: dict[str, Float]
    total_seconds: Float | None
    cpu_seconds: Float | None = None


@dataclass(frozen=True, repr=False)
class Run(Result, Artifact):
    """A finished training: its settings, cost, records and evaluation."""

    KIND: ClassVar[str] = "run"

    @cached_property
    def facts(self) -> _Manifest:
        """The manifest, checked; raises CorruptArtifactError."""
        return checked_manifest(self, _Manifest)

    @property
    def content(self) -> RunContent:
        """`manifest.content`, checked."""
        return self.facts.content

    @cached_property
    def settings(self) -> TrainSettings:
        """Every setting, resolved."""
        return as_fields(self.facts.parameters, TrainSettings)

    @property
    def model(self) -> str:
        """Name of the architecture."""
        return str(self.settings.model)

    @property
    def model_in_words(self) -> str:
        """The architecture, and whose weights it began with if they were not random."""
        begun = begun_from(self.settings)
        return self.model if begun is None else f"{self.model}, from {begun}"

    @property
    def image_size(self) -> int:
        """Input size in pixels."""
        return self.settings.image_size or 0

    @property
    def dataset_fingerprint(self) -> str:
        """Fingerprint of the data set."""
        return self.facts.inputs.dataset

    @property
    def images_sha256(self) -> str:
        """Digest of the training images, see `DataSet.images_sha256`."""
        return self.facts.inputs.images

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that it was trained with."""
        return self.facts.provenance.versions

    @property
    def num_images_embedded(self) -> int:
        """Forward passes of the prior: one per image, or one per crop."""
        if self.content.prior is None:
            return 0
        return self.content.num_images * max(1, self.settings.crops or 0)

    @property
    def num_images_seen(self) -> int:
        """Images seen by training, and by the prior when it embedded them."""
        return self.content.num_steps * self.settings.batch_size + self.num_images_embedded

    @property
    def seconds_by_phase(self) -> dict[str, float]:
        """Seconds by phase, `cost.json`; empty if that is missing or damaged."""
        return self._cost.seconds

    @property
    def total_seconds(self) -> float | None:
        """Sum of all phases; None if `cost.json` is missing or damaged."""
        return self._cost.total_seconds

    @property
    def cpu_seconds(self) -> float | None:
        """CPU seconds of all phases; None if they were not measured."""
        return self._cost.cpu_seconds

    @property
    def _cost(self) -> _Cost:
        found = read_json(self.path / COST_FILE, _Cost)
        return found or _Cost(seconds={}, total_seconds=None)

    @property
    def evaluation(self) -> EvaluationFile:
        """The evaluation on its own data set; an empty one if it is missing or damaged."""
        return read_evaluation(self.path / EVALUATION_FILE)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of `metrics.jsonl`, one per epoch."""
        return read_records(self.path / METRICS_FILE)

    def shown(self) -> dict[str, Any]:
        """What was trained on what, what it took, and what it came to."""
        content, settings, accuracies = self.content, self.settings, self.evaluation.accuracies
        measured = {
            "20-NN": accuracies.get("knn20", {}).get("top1"),
            "linear": accuracies.get("linear", {}).get("top1"),
            "online accuracy": None if accuracies else content.online_accuracy,
        }
        return {
            "name": self.name,
            "data set": content.dataset,
            "prior": content.prior or "none",
            "method": settings.method,
            "model": self.model_in_words,
            "epochs": settings.epochs,
            **{k: None if v is None else f"{100 * v:.1f} %" for k, v in measured.items()},
            "seconds": None if self.total_seconds is None else round(self.total_seconds, 1),
            "path": self.path,
        }


def begun_from(settings: TrainSettings) -> str | None:
    """Whose weights a run began with, NAME of NAME#DIGEST; None if they were random or the model's own."""
    name = None if settings.init is None else settings.init.rpartition("#")[0] or settings.init
    return None if name in (ITSELF, SEEDED) else name


def train_words(dataset: str, prior: str | None, settings: TrainSettings) -> list[str]:
    """`rela train` with every setting that is not the default; a network of own code brings its weights."""
    without = {"prior", *WHERE_TO_RUN, *(["init"] if begun_from(settings) is None else [])}
    options = option_words(TrainSettings, vars(settings), without)
    return ["rela", "train", dataset, "--prior", prior or "none", *options]


def cost_of(
    dataset: DataSet,
    representations: Representations | None,
    targets: Targets | None,
    train_seconds: dict[str, float],
    train_cpu_seconds: float | None,
    num_devices: int,
) -> dict[str, Any]:
    """The whole cost of a run; cached artifacts count with their original cost.

    `cpu_seconds` is None if any of it was made by a version that did not measure them.
    """
    seconds = {"convert": dataset.spent.seconds}
    cpu_seconds = [dataset.spent.cpu_seconds, train_cpu_seconds]
    if representations is not None and targets is not None:
        seconds |= {**representations.seconds_by_phase, "targets": targets.spent.seconds}
        cpu_seconds += [*representations.cpu_seconds, targets.spent.cpu_seconds]
    seconds |= {phase: round(value, 4) for phase, value in train_seconds.items()}
    on_device = sum(seconds.get(phase, 0.0) for phase in ("embed", "stage1", "stage2", "data_wait"))
    return {
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 4),
        "cpu_seconds": None if None in cpu_seconds else round(sum(filter(None, cpu_seconds)), 4),
        "device_seconds": round(num_devices * on_device, 4),
        "num_devices": num_devices,
    }


@dataclass(frozen=True)
class UnfinishedRun:
    """`online_accuracy`, in [0, 1], is that of the last finished epoch that has one."""

    name: str
    dataset: str
    num_epochs_done: int
    epochs: int
    online_accuracy: float | None

    @property
    def done(self) -> str:
        """Progress in words."""
        return f"{self.num_epochs_done} of {self.epochs} epochs"

    @property
    def command(self) -> str:
        """The command that resumes it."""
        return f"rela train --resume --name {self.name}"


def unfinished_run(directory: Path) -> UnfinishedRun:
    """A run without a manifest; raises CorruptArtifactError if its files are damaged."""
    config = read_config(directory)
    records = read_records(directory / METRICS_FILE)
    accuracies = [
        r["online_accuracy"] for r in records if isinstance(r.get("online_accuracy"), int | float)
    ]
    return UnfinishedRun(
        name=directory.name,
        dataset=config.dataset.name,
        num_epochs_done=len(records),
        epochs=config.settings.epochs,
        online_accuracy=accuracies[-1] if accuracies else None,
    )
