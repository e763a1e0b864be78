"""A run's files: configuration, cost, and how far an unfinished run has come."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.options import check_options
from rela.pipeline.artifact import Artifact
from rela.pipeline.errors import CorruptArtifactError
from rela.pipeline.files import read_regular
from rela.priors.earlier_run import BACKBONE_FILE, IDENTITY_FILE
from rela.stages.workspace.form import Form, misfit, settings_form
from rela.training.run_directory import METRICS_FILE, read_records
from rela.training.settings import TrainSettings

CONFIG_FILE, COST_FILE, LOCK_FILE = "config.json", "cost.json", ".lock"
DIGESTED_FILES = (BACKBONE_FILE, IDENTITY_FILE, CONFIG_FILE, METRICS_FILE, COST_FILE)
_CONFIG_FORM = {
    "fingerprint": str,
    "dataset": {"name": str, "fingerprint": str},
    "settings": {
        **settings_form(TrainSettings),
        # resolved before the run began
        "model": str, "image_size": int, "hyperparameters": str, "optimizer": str, "lr": float,
        "weight_decay": float, "schedule": str, "warmup_epochs": int,
    },
    "representations": (str, type(None)),
    "precision": str,
}  # fmt: skip


def read_config(directory: Path) -> dict[str, Any]:
    """A run's `config.json`, with every setting; raises CorruptArtifactError if it is damaged."""
    config = read_json(directory / CONFIG_FILE)
    problem = misfit(config, _CONFIG_FORM)
    if not problem:
        try:
            settings = TrainSettings(**config["settings"])
            check_options(settings)
            check_options(replace(settings, precision=config["precision"]))
            return {**config, "settings": asdict(settings)}
        except (TypeError, ChoiceError) as error:
            problem = str(error)
    raise CorruptArtifactError(
        f"{directory / CONFIG_FILE} is damaged ({problem}); remove {directory} and train again"
    )


def read_json(path: Path, form: Form | None = None) -> dict[str, Any]:
    """A JSON object from a file; empty if there is none, or it is damaged or has not this form."""
    try:
        value = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return {} if misfit(value, {} if form is None else form) else value


_COST_FORM = {"seconds": {...: float}, "total_seconds": float}


def cost_of(
    dataset: Artifact,
    representations: Artifact | None,
    targets: Artifact | None,
    train_seconds: dict[str, float],
    num_devices: int,
) -> dict[str, Any]:
    """The whole ledger of a run; artifacts that were there count as they did when they were made."""
    seconds = {"convert": dataset.manifest.provenance["seconds"]}
    if representations is not None and targets is not None:
        seconds |= _representations_seconds(representations)
        seconds["targets"] = targets.manifest.provenance["seconds"]
    seconds |= {phase: round(value, 4) for phase, value in train_seconds.items()}
    on_device = sum(seconds.get(phase, 0.0) for phase in ("embed", "stage1", "stage2", "data_wait"))
    return {
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 4),
        "device_seconds": round(num_devices * on_device, 4),
        "num_devices": num_devices,
    }


def seconds_by_phase(directory: Path) -> dict[str, float]:
    """The ledger of the run in `directory`; empty if it is not there, or damaged."""
    found: dict[str, float] = read_json(directory / COST_FILE, _COST_FORM).get("seconds", {})
    return found


def total_seconds(directory: Path) -> float | None:
    """The sum of the ledger; None if it is not there, or damaged."""
    found: float | None = read_json(directory / COST_FILE, _COST_FORM).get("total_seconds")
    return found


def num_images_embedded(run: Artifact) -> int:
    """Images that the prior looked at: every one, once or once for each of its crops."""
    if run.manifest.content["prior"] is None:
        return 0
    crops = run.manifest.parameters["crops"] or 0
    return int(run.manifest.content.get("num_images", 0)) * max(1, crops)


def num_images_seen(run: Artifact) -> int:
    """By training, and by the prior when it embedded them."""
    in_training = run.manifest.content["num_steps"] * run.manifest.parameters["batch_size"]
    return int(in_training) + num_images_embedded(run)


def _representations_seconds(representations: Artifact) -> dict[str, float]:
    """Embedding; where several priors were combined, that of each and the join."""
    known = representations.manifest.provenance
    if "components_seconds" not in known:
        return {"embed": known["seconds"]}
    return {"embed": round(sum(known["components_seconds"]), 4), "combine": known["seconds"]}


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
        """How far it is, in words."""
        return f"{self.num_epochs_done} of {self.epochs} epochs"

    @property
    def command(self) -> str:
        """What goes on with it."""
        return f"rela train --resume --name {self.name}"


def unfinished_run(directory: Path) -> UnfinishedRun:
    """What the files of a run without a manifest tell; raises CorruptArtifactError if they are damaged."""
    config = read_config(directory)
    records = read_records(directory / METRICS_FILE)
    accuracies = [r["online_accuracy"] for r in records if _is_number(r.get("online_accuracy"))]
    return UnfinishedRun(
        name=directory.name,
        dataset=config["dataset"]["name"],
        num_epochs_done=len(records),
        epochs=config["settings"]["epochs"],
        online_accuracy=accuracies[-1] if accuracies else None,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
