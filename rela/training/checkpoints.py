"""Checkpoints that are there whole or not at all: at epochs and in between; the last two are kept."""

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from rela.errors import LostRankError, PreemptedError, UnavailableError
from rela.pipeline.files import IrregularFileError, read_regular, replace_durably
from rela.pipeline.fingerprint import file_sha256
from rela.pipeline.processes import PREEMPTION_SIGNALS

_KEPT = 2


class RunCheckpoint(Checkpoint):  # type: ignore[misc]
    """Saves after every epoch, every `interval_seconds`, and when the job is told to make room.

    `step-00001234.ckpt`, then `step-00001234.json` with its SHA-256: the JSON file is renamed in last,
    and a checkpoint without one does not count. It also holds `seconds`, the run's ledger by phase, to
    which saving adds its own. On SIGTERM or SIGUSR1 the step that is under way is finished and saved,
    and PreemptedError raised. `start_step` is the one that this process goes on from.
    """

    def __init__(
        self,
        directory: Path,
        seconds: dict[str, float],
        interval_seconds: float,
        start_step: int = 0,
    ) -> None:
        self.directory, self.seconds = directory, seconds
        self.interval_seconds, self.start_step = interval_seconds, start_step
        self._saved_at = 0.0
        self._received: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise LostRankError on all processes if a shared disk showed them different checkpoints."""
        if trainer.world_size == 1:
            return
        first = trainer.strategy.broadcast(self.start_step)
        if _any_rank(trainer, first != self.start_step):
            raise LostRankError(
                f"processes found different checkpoints in {self.directory}: this one step "
                f"{self.start_step}, the first one step {first}; their file systems do not agree yet: "
                "start them again"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on, listen."""
        self._saved_at = time.perf_counter()
        if threading.current_thread() is threading.main_thread():
            for number in PREEMPTION_SIGNALS:
                self._handlers[number] = signal.signal(number, self._receive)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """However the training ends, signals mean again what they meant before."""
        self._stop_listening()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same."""
        self._stop_listening()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Between two optimizer steps: everything of the last one is done, its averages included."""
        if batch_idx > 0 and batch_idx % trainer.accumulate_grad_batches == 0:
            told = self._is_told(trainer)
            if told or self._is_due(trainer):
                self._save(trainer, trainer.current_epoch)
            if told:
                self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Always."""
        self._save(trainer, trainer.current_epoch + 1)
        if self._is_told(trainer) and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self._stop(trainer)

    def _is_told(self, trainer: pl.Trainer) -> bool:
        return _any_rank(trainer, self._received is not None)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        since = time.perf_counter() - self._saved_at
        return _any_rank(trainer, since >= self.interval_seconds)

    def _stop(self, trainer: pl.Trainer) -> None:
        trainer.strategy.barrier()  # a process that ended would have those killed that still save
        name = "a signal to another process" if self._received is None else self._received.name
        raise PreemptedError(
            f"{name}: saved after step {trainer.global_step}; resume with `rela train --resume`"
        )

    def _stop_listening(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _receive(self, number: int, frame: Any) -> None:
        self._received = signal.Signals(number)

    def _save(self, trainer: pl.Trainer, epochs_done: int) -> None:
        start = time.perf_counter()
        path = self.directory / f"step-{trainer.global_step:08d}.ckpt"
        temporary = path.with_suffix(".tmp")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(temporary)
            self._saved_at = time.perf_counter()
            spent = self._saved_at - start
            self.seconds["checkpoint"] = self.seconds.get("checkpoint", 0.0) + spent
            if trainer.is_global_zero:
                record = {"step": trainer.global_step, "epochs_done": epochs_done}
                _publish(temporary, path, {**record, "seconds": self.seconds})
                _remove_older(self.directory)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UnavailableError(
                f"cannot write the checkpoint {path}: {error.strerror}; free some space, then "
                "resume with `rela train --resume`"
            ) from error


def _any_rank(trainer: pl.Trainer, decision: bool) -> bool:
    """Saving is a matter of all ranks, so they decide alike."""
    if trainer.world_size == 1:
        return decision
    return bool(trainer.strategy.reduce_boolean_decision(decision, all=False))


def newest_checkpoint(
    directory: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint whose digest matches, with its record; None if there is none.

    Damaged ones are passed over, which is said.
    """
    passed_over = []
    found = None
    for record_path in sorted(directory.glob("step-*.json"), reverse=True):
        path = record_path.with_suffix(".ckpt")
        record = _record_of(path)
        if record is not None:
            found = path, record
            break
        passed_over.append(path)
    if passed_over:
        where = "from the beginning" if found is None else f"from {found[0].name}"
        names = " and ".join(str(path) for path in passed_over)
        say(f"warning: {names} cannot be used (damaged, or missing); going on {where}")
    return found


def clear_useless(directory: Path, newest: Path | None) -> None:
    """Remove what is not whole: half a checkpoint of a killed process, and those after `newest`."""
    for path in directory.glob("step-*"):
        is_whole = path.with_suffix(".json").is_file() and not path.name.endswith(".tmp")
        if not is_whole or newest is None or path.stem > newest.stem:
            path.unlink(missing_ok=True)


def _record_of(path: Path) -> dict[str, Any] | None:
    """What is known of the checkpoint `path`, if it is sound."""
    try:
        record: dict[str, Any] = json.loads(read_regular(path.with_suffix(".json")))
        expected = record.pop("record_sha256")
        sound = expected == _digest(record) and record["sha256"] == file_sha256(path)
    except (FileNotFoundError, IrregularFileError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # but a disk that cannot be read now may be readable tomorrow
    return record if sound else None


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _publish(temporary: Path, path: Path, record: dict[str, Any]) -> None:
    """Publish the checkpoint, then the record without which it does not count; both durably."""
    record = {**record, "sha256": file_sha256(temporary)}
    replace_durably(temporary, path)
    record_temporary = path.with_suffix(".json.tmp")
    text = json.dumps({**record, "record_sha256": _digest(record)})
    record_temporary.write_text(text, encoding="utf-8")
    replace_durably(record_temporary, path.with_suffix(".json"))


def _remove_older(directory: Path) -> None:
    for record in sorted(directory.glob("step-*.json"))[:-_KEPT]:
        record.unlink()
        record.with_suffix(".ckpt").unlink(missing_ok=True)
