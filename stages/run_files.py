"""What lies in a run's directory, by name, and how to read it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.errors import CorruptArtifactError
from pipeline.regular_file import read_regular
from rela.errors import ChoiceError
from rela.options import check_options
from rela.run_directory import BACKBONE_FILE, IDENTITY_FILE, METRICS_FILE
from stages.form import Form, misfit, settings_form
from stages.settings import TrainSettings

CONFIG_FILE, COST_FILE, LOCK_FILE = "config.json", "cost.json", ".lock"
COST_FORM = {"seconds": {...: float}, "total_seconds": float}
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


def _representations_seconds(representations: Artifact) -> dict[str, float]:
    """Embedding, and where several priors were combined (stages.combine), every one's and the join."""
    known = representations.manifest.provenance
    if "components_seconds" not in known:
        return {"embed": known["seconds"]}
    return {"embed": round(sum(known["components_seconds"]), 4), "combine": known["seconds"]}
