"""The training module: regress targets, hand over, run the algorithm (ReLA-F, arXiv 2405.14669)."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from lightly.utils.benchmarking import OnlineLinearClassifier
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from rela.data.loader import ViewLoader
from rela.distributed.strategy import RankStrategy
from rela.errors import DataError
from rela.methods.method import Method, Progress
from rela.methods.optimizers import OptimizerSettings, build_optimizer, build_schedule
from rela.models.layers import features_and_map
from rela.models.normalization import Normalization
from rela.training.diagnosis import diverged
from rela.training.handover import HandOver
from rela.training.map_loss import MapLoss


class DivergedError(DataError):
    """The loss became NaN or infinite."""


def target_loss(predictions: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Mean over views and samples of 1 − cos(prediction, target); [B, d] for each view."""
    losses = [
        1.0 - cosine_similarity(prediction.float(), target.float(), dim=1).mean()
        for prediction, target in zip(predictions, targets, strict=True)
    ]
    return torch.stack(losses).mean()


class TwoStage(pl.LightningModule):
    """Stage 1 regresses cached targets through one linear layer W; stage 2 is `method`.

    - `method`: a module of `rela.methods`, holding the backbone being trained;
    - `handover`: decides when stage 1 ends; None trains the algorithm from the start;
    - `target_width`: d of the targets; `learn_head` puts W into the optimizer, else it keeps its
      random initial value as in the reference;
    - `anchor`: weight in stage 2 of the target loss, on the views of stage 2; 0: `method` unchanged;
    - `map_loss`: in stage 1, the loss on maps beside that on vectors, see rela.training.map_loss;
    - `loader`: told to change its views at the hand-over;
    - `num_steps`: optimizer steps of the whole training.

    Where there are labels, a linear layer on detached features trains in both stages, for monitoring
    only.
    """

    def __init__(
        self,
        method: Method,
        loader: ViewLoader,
        optimizer: OptimizerSettings,
        num_steps: int,
        handover: HandOver | None = None,
        target_width: int = 0,
        learn_head: bool = False,
        seed: int = 0,
        memory_format: torch.memory_format = torch.channels_last,
        anchor: float = 0.0,
        map_loss: MapLoss | None = None,
    ) -> None:
        super().__init__()
        options = method.options
        self.method = method
        self.handover = handover
        self.stage = 1 if handover is not None else 2
        self.handover_step: int | None = None
        self.anchor = anchor
        self.head: nn.Linear | None = None
        if target_width:
            self.head = nn.Linear(options.feature_dim, target_width).requires_grad_(learn_head)
        self.classifier: Any = None
        if options.num_classes:
            self.classifier = OnlineLinearClassifier(
                options.feature_dim, options.num_classes, topk=(1,)
            )
        self.map_loss = map_loss
        self.optimizer_settings, self.num_steps, self.seed = optimizer, num_steps, seed
        self._memory_format = memory_format
        self._loader = loader
        self._step_losses: list[Tensor] = []
        self._steps_seen = 0
        self._normalization = Normalization()

    def setup(self, stage: str) -> None:
        """Give this rank its share of every batch, and its own stream for dropout."""
        torch.manual_seed(self.seed + self.trainer.global_rank)
        self._loader.set_rank(self.trainer.global_rank, self.trainer.world_size)
        self._loader.pin_memory = self.trainer.strategy.root_device.type == "cuda"

    def on_train_start(self) -> None:
        """Tell DDP the stage, which decides the parameters that have gradients."""
        if isinstance(self.trainer.strategy, RankStrategy):
            self.trainer.strategy.follow_stage()

    def configure_optimizers(self) -> Any:
        """One optimizer and one schedule for both stages, without a restart at the hand-over."""
        monitoring = () if self.classifier is None else self.classifier.parameters()
        optimizer = build_optimizer(self.optimizer_settings, self.parameters(), monitoring)
        schedule = build_schedule(
            self.optimizer_settings, optimizer, self.num_steps, self._steps_per_epoch
        )
        if schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @property
    def has_unused_parameters(self) -> bool:
        """Whether some trained parameters get no gradient: the method's heads in stage 1, or W in stage 2."""
        head_is_trained = self.head is not None and self.head.weight.requires_grad
        is_used = self.anchor and self.map_loss is None
        return self.stage == 1 or (head_is_trained and not is_used)

    @property
    def progress(self) -> Progress:
        """Progress of stage 2; its step 0 is the hand-over."""
        begin = self.handover_step or 0
        return Progress(
            self._steps_seen - begin, max(1, self.num_steps - begin), self._steps_per_epoch
        )

    @property
    def _steps_per_epoch(self) -> int:
        return max(1, len(self._loader) // self._loader.accumulate)

    def normalize(self, view: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] → float32, zero mean and unit variance per channel."""
        normalized: Tensor = self._normalization(view, self._memory_format)
        return normalized

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Loss of one micro-batch in the current stage, plus that of the monitoring classifier.

        Returns `loss` and, without gradients, for monitoring: `objective`, the stage's own loss;
        `features` [B, F] of the first view; `accuracy` of the classifier where there are labels.
        """
        views = [self.normalize(view) for view in batch["views"]]
        if self.stage == 1:
            assert self.head is not None
            features, loss = self._regress(views, batch, self.head)
            objective = loss
        else:
            objective, features = self.method(views, batch["label"], self.progress)
            loss = objective
            if self.anchor:
                assert self.head is not None
                predictions = [self.head(f) for f in features]
                targets = batch["targets"][: len(features)]  # full-sized views come first
                loss = loss + self.anchor * target_loss(predictions, targets)
        self._step_losses.append(loss.detach())
        result: dict[str, Any] = {
            "loss": loss,
            "objective": objective.detach(),
            "features": features[0].detach(),
        }
        if self.classifier is not None:
            labels = batch["label"].repeat(len(features))
            classifier_loss, log = self.classifier.training_step(
                (torch.cat(features), labels), batch_idx
            )
            result["loss"] = loss + classifier_loss
            result["accuracy"] = log["train_online_cls_top1"].detach()
        return result

    def _regress(
        self, views: list[Tensor], batch: dict[str, Any], head: nn.Linear
    ) -> tuple[list[Tensor], Tensor]:
        """Features [B, F] of each view, and the loss: on vectors, or its weighted mean with that on maps."""
        if self.map_loss is None:
            features = [self.method.backbone(view) for view in views]
            return features, target_loss([head(f) for f in features], batch["targets"])
        both = [features_and_map(self.method.backbone, view) for view in views]
        features, maps = [f for f, _ in both], [m for _, m in both]
        on_vectors = target_loss([head(f) for f in features], batch["targets"])
        weight = self.map_loss.weight
        loss = (on_vectors + weight * self.map_loss(maps, batch)) / (1 + weight)
        return features, loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """In stage 2, apply the algorithm's changes to gradients and weight decay."""
        if self.stage == 1:
            return
        self.method.before_step(self.progress)
        decay = self.method.weight_decay(self.optimizer_settings.weight_decay, self.progress)
        for group in optimizer.param_groups:
            if group["decays"]:
                group["weight_decay"] = decay

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients per part, so that those of the monitoring classifier do not shrink the others."""
        if gradient_clip_val is not None:
            parts = (self.method, self.head, self.map_loss, self.classifier)
            for part in (p for p in parts if p is not None):
                torch.nn.utils.clip_grad_norm_(part.parameters(), gradient_clip_val)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After an optimizer step: momentum update, then the hand-over rule on the step's loss."""
        if self.trainer.global_step == self._steps_seen:
            return  # only accumulated
        self._steps_seen = self.trainer.global_step
        self.method.update_momentum(None if self.stage == 1 else self.progress)
        loss = torch.stack(self._step_losses).mean()
        self._step_losses.clear()
        value = float(self.trainer.strategy.reduce(loss, reduce_op="mean"))
        if not math.isfinite(value):
            raise DivergedError(
                diverged(
                    self.stage, value, self._steps_seen, self.optimizer_settings.lr,
                    str(self.trainer.precision), batch["views"],
                )
            )  # fmt: skip
        if self.stage == 1 and self.handover is not None and self.handover.update(value):
            self.begin_stage2()
            self.on_train_start()

    def begin_stage2(self) -> None:
        """Switch to the algorithm and its views from the next batch on."""
        self.stage = 2
        self.handover_step = self._steps_seen
        self.load_for_stage2()

    def load_for_stage2(self) -> None:
        """Load the algorithm's views; with an anchor, the targets too."""
        self._loader.set_views(self.method.stage2_views(), with_targets=self.anchor > 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the state that Lightning does not save: stage, hand-over rule, random state."""
        # micro-batches trained in the current epoch, without those only prefetched
        completed = self.trainer.fit_loop.epoch_loop.batch_progress.current.completed
        checkpoint["rela"] = {
            "stage": self.stage,
            "handover_step": self.handover_step,
            "handover": None if self.handover is None else self.handover.state_dict(),
            "steps_seen": self._steps_seen,
            "batches_done": int(completed) % len(self._loader),
            "torch_rng_state": torch.get_rng_state(),
            "cuda_rng_states": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state that `on_save_checkpoint` saved."""
        state = checkpoint["rela"]
        self.stage, self.handover_step = state["stage"], state["handover_step"]
        self._steps_seen = state["steps_seen"]
        self._loader.start_at(state["batches_done"])
        for schedule in checkpoint.get("lr_schedulers", []):
            schedule["max_epochs"] = self.num_steps  # more than there were, if a run is extended
        if self.handover is not None:
            self.handover.load_state_dict(state["handover"])
        if self.handover is not None and self.stage == 2:
            self.load_for_stage2()
        if self.trainer.world_size > 1:
            return  # the saved states are those of rank 0; every rank keeps its own seed
        torch.set_rng_state(state["torch_rng_state"].cpu())
        if len(state["cuda_rng_states"]) == torch.cuda.device_count() > 0:
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda_rng_states"]])
