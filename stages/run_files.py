"""What lies in a run's directory, by name, and how to read it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.errors import CorruptArtifactError
from pipeline.regular_file import read_regular
from rela.errors import ChoiceError
from rela.options import check_options
from rela.run_directory import BACKBONE_FILE, IDENTITY_FILE, METRICS_FILE
from stages.form import Form, misfit, settings_form
from stages.settings import TrainSettings

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
