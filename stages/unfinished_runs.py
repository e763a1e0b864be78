"""Runs that were begun and did not end yet: how far they are, and the command that goes on with them."""

import json
from dataclasses import dataclass
from pathlib import Path

from rela.run_directory import METRICS_FILE
from stages.run_files import read_config


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
    path = directory / METRICS_FILE
    lines = path.read_bytes().splitlines() if path.is_file() else []
    accuracies = [value for line in lines if (value := _accuracy(line)) is not None]
    return UnfinishedRun(
        name=directory.name,
        dataset=config["dataset"]["name"],
        num_epochs_done=len(lines),
        epochs=config["settings"]["epochs"],
        online_accuracy=accuracies[-1] if accuracies else None,
    )


def _accuracy(line: bytes) -> float | None:
    """Of one epoch's record, which a killed job may have left torn."""
    try:
        value = json.loads(line)["online_accuracy"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return float(value) if isinstance(value, int | float) else None
