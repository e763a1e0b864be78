"""Atomic checkpoints at and between the ends of epochs; the last two are kept."""

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
from rela.pipeline.processes import STOPPING_SIGNALS, not_ignored

_KEPT = 2
_LARGEST_SHARE = 0.05  # of the time that a training may spend on checkpoints at the ends of epochs
_ALWAYS_SECONDS = 5.0  # that it may spend in any case


class RunCheckpoint(Checkpoint):  # type: ignore[misc]
    """Saves after epochs, every `interval_seconds`, and on SIGTERM, SIGUSR1, SIGHUP or Ctrl-C.

    The last epoch and that of the hand-over are always saved. Others are not once saving has taken five
    seconds and a twentieth of the time.

    Writes `step-00001234.ckpt`, then `step-00001234.json` with its SHA-256; a checkpoint without this
    record does not count. The record also holds `seconds`, the run's seconds by phase, to which saving
    adds its own, and what `cpu_seconds` returns. After a signal the current step is finished and saved,
    and PreemptedError raised, or KeyboardInterrupt; a second Ctrl-C raises that at once. `start_step` is the
    step that this process resumes from.
    """

    def __init__(
        self,
        directory: Path,
        seconds: dict[str, float],
        cpu_seconds: Callable[[], float],
        interval_seconds: float,
        start_step: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.directory, self.seconds, self.cpu_seconds = directory, seconds, cpu_seconds
        self.interval_seconds, self.start_step = interval_seconds, start_step
        self._say, self._saved_at = say, 0.0
        self._begin, self._spent, self._stage = 0.0, 0.0, 0
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
                f"{self.start_step}, rank 0 step {first}; their file systems disagree for now: "
                "start them again"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers."""
        self._begin = self._saved_at = time.perf_counter()
        if threading.current_thread() is threading.main_thread():
            for number in not_ignored(STOPPING_SIGNALS):
                self._handlers[number] = signal.signal(number, self._receive)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Restore the signal handlers."""
        self._restore_handlers()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the signal handlers."""
        self._restore_handlers()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save between two optimizer steps, after the averages of the last step are updated."""
        if batch_idx > 0 and batch_idx % trainer.accumulate_grad_batches == 0:
            signaled = self._is_signaled(trainer)
            is_due = time.perf_counter() - self._saved_at >= self.interval_seconds
            if signaled or _any_rank(trainer, is_due):
                self._save(trainer, trainer.current_epoch)
            if signaled:
                self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, unless that has taken too much of the time."""
        is_last = trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
        signaled = self._is_signaled(trainer)
        stage = getattr(pl_module, "stage", 0)
        is_needed = is_last or signaled or stage != self._stage
        self._stage = stage
        now = time.perf_counter()
        is_cheap = self._spent <= max(_ALWAYS_SECONDS, _LARGEST_SHARE * (now - self._begin))
        is_due = is_cheap or now - self._saved_at >= self.interval_seconds
        if is_needed or _any_rank(trainer, is_due):
            self._save(trainer, trainer.current_epoch + 1)
        if signaled and not is_last:
            self._stop(trainer)

    def _is_signaled(self, trainer: pl.Trainer) -> bool:
        return _any_rank(trainer, self._received is not None)

    def _stop(self, trainer: pl.Trainer) -> None:
        trainer.strategy.barrier()  # a process that ends causes others to be killed while they save
        done = f"saved after step {trainer.global_step}; resume with `rela train --resume`"
        if self._received is signal.SIGINT:
            raise KeyboardInterrupt(done)
        name = "a signal to another process" if self._received is None else self._received.name
        raise PreemptedError(f"{name}: {done}")

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _receive(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            if self._received is not None:
                raise KeyboardInterrupt
            # another thread, because a handler may interrupt the printing of a line
            line = "Ctrl-C: saving after this step; press it again to stop at once"
            threading.Thread(target=self._say, args=(line,)).start()
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
                record: dict[str, Any] = {"step": trainer.global_step, "epochs_done": epochs_done}
                record |= {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds()}
                _publish(temporary, path, record)
                _remove_older(self.directory)
            self._spent += time.perf_counter() - start
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UnavailableError(
                f"cannot write the checkpoint {path}: {error.strerror}; free some space, then "
                "resume with `rela train --resume`"
            ) from error


def _any_rank(trainer: pl.Trainer, decision: bool) -> bool:
    """Whether `decision` is true on any rank: all ranks save together."""
    if trainer.world_size == 1:
        return decision
    return bool(trainer.strategy.reduce_boolean_decision(decision, all=False))


def newest_checkpoint(
    directory: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint whose digest matches, with its record; None if there is none.

    Damaged checkpoints are skipped with a warning.
    """
    skipped = []
    found = None
    for record_path in sorted(directory.glob("step-*.json"), reverse=True):
        path = record_path.with_suffix(".ckpt")
        record = _record_of(path)
        if record is not None:
            found = path, record
            break
        skipped.append(path)
    if skipped:
        where = "from the beginning" if found is None else f"from {found[0].name}"
        names = " and ".join(str(path) for path in skipped)
        say(f"warning: {names} cannot be used (damaged or missing); resuming {where}")
    return found


def clear_useless(directory: Path, newest: Path | None) -> None:
    """Remove incomplete checkpoints of a killed process and those later than `newest`."""
    for path in directory.glob("step-*"):
        is_whole = path.with_suffix(".json").is_file() and not path.name.endswith(".tmp")
        if not is_whole or newest is None or path.stem > newest.stem:
            path.unlink(missing_ok=True)


def _record_of(path: Path) -> dict[str, Any] | None:
    """The record of the checkpoint `path` if both are intact."""
    try:
        record: dict[str, Any] = json.loads(read_regular(path.with_suffix(".json")))
        expected = record.pop("record_sha256")
        sound = expected == _digest(record) and record["sha256"] == file_sha256(path)
    except (FileNotFoundError, IrregularFileError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # other OSErrors are raised: the disk may be readable again later
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
