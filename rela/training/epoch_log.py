"""One record per epoch: losses, rates, seconds, and measures of feature collapse."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from rela.data.loader import ViewLoader
from rela.representations.quality import effective_rank, feature_std
from rela.training.diagnosis import Diagnosis, Facts
from rela.training.progress import LiveProgress, Rates, Snapshot, estimate
from rela.training.run_directory import append_record, read_records

_SHOWN_STEPS = 50  # over which the live line averages
_SECONDS_BEFORE_ESTIMATE = 10.0  # of steps after the first one
_SHORTEST_ESTIMATE = 60.0  # seconds to go; less needs no words
_LOGGED = (
    "loss", "rho", "lr", "images_per_second", "data_wait_share", "online_accuracy", "effective_rank",
    "feature_std",
)  # fmt: skip


class EpochLog(pl.Callback):  # type: ignore[misc]
    """Sums losses, accuracy and seconds over an epoch and writes one record at its end.

    Meanwhile `live` shows progress. `seconds` holds the run's seconds by phase, of which stage1, stage2
    and data_wait are counted here. `diagnosis` warns of problems that the records show.
    """

    def __init__(
        self,
        path: Path,
        loader: ViewLoader,
        seconds: dict[str, float],
        facts: Facts,
        live: LiveProgress,
        say: Callable[[str], None],
    ) -> None:
        self.path, self.loader, self.seconds, self.say = path, loader, seconds, say
        self.live, self._rates, self._images_seen = live, Rates(), 0
        self.diagnosis = Diagnosis(facts, self._say, read_records(path))
        self._objectives: list[Tensor] = []
        self._accuracies: list[Tensor] = []
        self._features = FeatureSample(len(loader), len(loader) * loader.batch_size)
        self._rate = 0.0
        self._mark = self._epoch_start = 0.0
        self._stage = 0
        self._stages: set[int] = set()  # of the epoch's steps
        self._announced = self._estimated = False
        self._waited_before = self._waited_at_start = 0.0
        self._elapsed_earlier = self._waited_earlier = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The sums of the current epoch."""
        return {
            "objectives": torch.stack(self._objectives).cpu() if self._objectives else None,
            "accuracies": torch.stack(self._accuracies).cpu() if self._accuracies else None,
            "features": self._features.state_dict(),
            "elapsed": self._elapsed_earlier + time.perf_counter() - self._epoch_start,
            "waited": self._waited_earlier + self.loader.wait_seconds - self._waited_at_start,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume the current epoch."""
        for values, saved in (
            (self._objectives, state_dict["objectives"]),
            (self._accuracies, state_dict["accuracies"]),
        ):
            values[:] = [] if saved is None else list(saved)
        self._features.load_state_dict(state_dict["features"])
        if self._objectives:
            self._elapsed_earlier = state_dict["elapsed"]
            self._waited_earlier = state_dict["waited"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show that training begins; a resumed run in stage 2 has announced it already."""
        self._start_clocks()
        self._announced = pl_module.handover_step is not None
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.live.show(f"stage {pl_module.stage}  {epoch}  waiting for the first batch")
        if trainer.is_global_zero:
            self.diagnosis.begin()

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Remove the progress line."""
        self.live.clear()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the clocks of the epoch; not called for an epoch resumed in the middle."""
        self._start_clocks()
        self._elapsed_earlier = self._waited_earlier = 0.0
        self._clear()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the stage and the learning rate of this step."""
        self._announce(pl_module)
        if self._stage != pl_module.stage:
            self._rates.clear()
        self._stage = pl_module.stage
        self._stages.add(self._stage)
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect means over all processes without waiting for the GPU."""
        for name, values in (("objective", self._objectives), ("accuracy", self._accuracies)):
            if name in outputs:
                values.append(trainer.strategy.reduce(outputs[name].clone(), reduce_op="mean"))
        self._features.add(len(self._objectives) - 1, outputs["features"])
        now = time.perf_counter()
        waited = self.loader.wait_seconds - self._waited_before
        self._waited_before = self.loader.wait_seconds
        self._add(f"stage{self._stage}", now - self._mark - waited)
        self._add("data_wait", waited)
        self._mark = now
        self._images_seen += self.loader.batch_size
        self._rates.mark(now, self._images_seen, self.loader.wait_seconds)
        self.live.update(now, lambda: self._snapshot(trainer, pl_module))
        if not self._estimated and self._rates.seconds > _SECONDS_BEFORE_ESTIMATE:
            self._estimated = True
            if trainer.is_global_zero:
                snapshot = self._snapshot(trainer, pl_module)
                if (snapshot.eta_seconds or 0.0) >= _SHORTEST_ESTIMATE:
                    self._say(estimate(snapshot))

    def _snapshot(self, trainer: pl.Trainer, module: Any) -> Snapshot:
        """The current progress; waits for the device, so it is taken only now and then."""
        epochs, batches, done = trainer.max_epochs or 0, len(self.loader), len(self._objectives)
        loss = float(torch.stack(self._objectives[-_SHOWN_STEPS:]).mean())
        accuracies = self._accuracies[-_SHOWN_STEPS:]
        rate, wait_share = self._rates.current()
        left = (batches * (epochs - trainer.current_epoch) - done) * self.loader.batch_size
        step, num_steps = trainer.global_step, module.num_steps
        handover = module.handover if module.stage == 1 else None
        return Snapshot(
            stage=module.stage,
            epoch=trainer.current_epoch,
            epochs=epochs,
            epoch_share=done / batches,
            step=step,
            num_steps=num_steps,
            loss=loss,
            rho=None if handover is None else handover.rho,
            online_accuracy=float(torch.stack(accuracies).mean()) if accuracies else None,
            images_per_second=rate,
            data_wait_share=wait_share,
            eta_seconds=left / rate if rate else None,
            eta_is_least=handover is not None and step + handover.steps_left(loss) <= num_steps,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the record of the epoch and print it in one line."""
        self._announce(pl_module)
        elapsed = self._elapsed_earlier + time.perf_counter() - self._epoch_start
        num_images = len(self._objectives) * self.loader.batch_size
        waited = self._waited_earlier + self.loader.wait_seconds - self._waited_at_start
        record: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "stage": pl_module.stage,
            "loss": float(torch.stack(self._objectives).mean()),
            "rho": None if pl_module.handover is None else pl_module.handover.rho,
            "handover_step": pl_module.handover_step,
            "earliest_handover_step": None,
            "lr": self._rate,
            "images_per_second": num_images / elapsed,
            "epoch_seconds": elapsed,
            "data_wait_share": waited / elapsed,
        }
        if pl_module.stage == 1:
            left = pl_module.handover.steps_left(record["loss"])
            record["earliest_handover_step"] = trainer.global_step + left
        if self._accuracies:
            record["online_accuracy"] = float(torch.stack(self._accuracies).mean())
        if trainer.is_global_zero:
            record |= self._features.figures()
            append_record(self.path, record)
            self._say(_line(record, trainer.max_epochs or 0, self._stages))
            self.diagnosis.add(record)
        for name in _LOGGED:
            if record.get(name) is not None:
                pl_module.log(name, record[name], rank_zero_only=True)
        self._clear()

    def _clear(self) -> None:
        self._stages.clear()
        self._objectives.clear()
        self._accuracies.clear()
        self._features.clear()

    def _start_clocks(self) -> None:
        self._mark = self._epoch_start = time.perf_counter()
        self._waited_before = self._waited_at_start = self.loader.wait_seconds

    def _announce(self, module: Any) -> None:
        """Say once that stage 2 has begun; the module decides it after this callback has run."""
        if module.handover_step is not None and not self._announced:
            self._announced = True
            self._say(f"hand-over to stage 2 after step {module.handover_step}")

    def _say(self, line: str) -> None:
        self.live.say(line, self.say)

    def _add(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


def _line(record: dict[str, Any], max_epochs: int, stages: set[int]) -> str:
    words = [
        f"epoch {record['epoch'] + 1}/{max_epochs}",
        f"stage {' and '.join(map(str, sorted(stages)))}",
        f"loss {record['loss']:.4f}",
    ]
    if record["rho"] is not None and record["stage"] == 1:
        words.append(f"rho {record['rho']:.4f}")
    if "online_accuracy" in record:
        words.append(f"online accuracy {100 * record['online_accuracy']:.1f} %")
    words.append(f"{record['images_per_second']:.0f} img/s")
    words.append(f"data wait {100 * record['data_wait_share']:.1f} %")
    return "  ".join(words)


_FEWEST_ROWS, _MOST_ROWS = 128, 1024
_SHARE = 1 / 128  # of an epoch's images: their eigenvalues take well under 1 % of its time
_DECIMALS = 4  # equal bytes on machines whose eigenvalues differ in the last bits


class FeatureSample:
    """Keeps the features [B, F] of the last of `num_batches` micro-batches with `num_images` in all.

    At most `num_rows` rows: 128 to 1,024, depending on the length of the epoch. They stay on their
    device until the epoch ends, so nothing waits for them. Each process keeps its own images' rows.
    """

    def __init__(self, num_batches: int, num_images: int) -> None:
        self.num_batches = num_batches
        self.num_rows = min(max(round(_SHARE * num_images), _FEWEST_ROWS), _MOST_ROWS)
        self._kept: list[Tensor] = []

    def add(self, batch: int, features: Tensor) -> None:
        """Take the features of micro-batch `batch` (from 0) if it is one of the epoch's last."""
        if self.num_batches - batch <= math.ceil(self.num_rows / len(features)):
            self._kept.append(features.detach()[: self.num_rows])

    def figures(self) -> dict[str, float]:
        """`effective_rank` (1 to F) and `feature_std` (0 collapsed, 1 isotropic), see `quality`.

        Empty if fewer than two rows are finite.
        """
        if not self._kept:
            return {}
        rows = torch.cat([kept.float().cpu() for kept in self._kept])[-self.num_rows :].numpy()
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows) < 2:
            return {}
        found = {"effective_rank": effective_rank(rows), "feature_std": feature_std(rows)}
        return {name: round(value, _DECIMALS) for name, value in found.items()}

    def clear(self) -> None:
        """Forget all features, before the next epoch."""
        self._kept.clear()

    def state_dict(self) -> dict[str, Any]:
        """The features kept in the current epoch."""
        return {"kept": [kept.cpu() for kept in self._kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume the current epoch."""
        self._kept = list(state["kept"])
