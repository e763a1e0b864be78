"""Runs that were begun and did not end yet: how far they are, and the command that goes on with them."""

from dataclasses import dataclass
from pathlib import Path

from rela.epoch_records import read_records
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
