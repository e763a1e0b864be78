"""Checkpoints that are there whole or not at all: one per epoch, the last two are kept."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from rela.digests import file_sha256
from rela.errors import UnavailableError

_KEPT = 2


class EpochCheckpoint(Checkpoint):  # type: ignore[misc]
    """Saves after every epoch: `epoch-0003.ckpt`, then `epoch-0003.json` with its SHA-256.

    The JSON file is renamed in last; a checkpoint without one does not count. It also holds
    `seconds`, the run's ledger by phase, to which saving adds its own.
    """

    def __init__(self, directory: Path, seconds: dict[str, float]) -> None:
        self.directory = directory
        self.seconds = seconds

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, publish, and remove the one before the last."""
        start = time.perf_counter()
        epochs_done = trainer.current_epoch + 1
        path = self.directory / f"epoch-{epochs_done:04d}.ckpt"
        temporary = path.with_suffix(".tmp")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(temporary)
            spent = time.perf_counter() - start
            self.seconds["checkpoint"] = self.seconds.get("checkpoint", 0.0) + spent
            if trainer.is_global_zero:
                _publish(temporary, path, {"epochs_done": epochs_done, "seconds": self.seconds})
                _remove_older(self.directory)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UnavailableError(
                f"cannot write the checkpoint {path}: {error.strerror}; free some space, then go on "
                "with `rela train --resume`"
            ) from error


def newest_checkpoint(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint whose digest matches, with its record; None if there is none."""
    for record_path in sorted(directory.glob("epoch-*.json"), reverse=True):
        path = record_path.with_suffix(".ckpt")
        try:
            record: dict[str, Any] = json.loads(record_path.read_bytes())
            if file_sha256(path) == record["sha256"]:
                return path, record
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _publish(temporary: Path, path: Path, record: dict[str, Any]) -> None:
    """Make bytes durable, then their name, then the record that makes them count."""
    record = {**record, "sha256": file_sha256(temporary)}
    _rename_durably(temporary, path)
    record_temporary = path.with_suffix(".json.tmp")
    record_temporary.write_text(json.dumps(record), encoding="utf-8")
    _rename_durably(record_temporary, path.with_suffix(".json"))


def _rename_durably(source: Path, destination: Path) -> None:
    """Bytes first, then the name: after a power cut there is the old file or the new one."""
    _fsync(source)
    os.replace(source, destination)
    _fsync(destination.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_older(directory: Path) -> None:
    for record in sorted(directory.glob("epoch-*.json"))[:-_KEPT]:
        record.unlink()
        record.with_suffix(".ckpt").unlink(missing_ok=True)
