"""Build model, method, loader and Trainer, and train to the last epoch."""

import contextlib
import json
import logging
import math
import signal
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.data.memory import keep_freed_memory
from rela.data.sampling import num_chosen
from rela.data.views import View, stage1_views
from rela.distributed.ranks import current_ranks
from rela.distributed.strategy import device_options, is_lost_connection, lost_rank_message
from rela.errors import LostRankError
from rela.methods import method_class
from rela.methods.method import Method, MethodOptions
from rela.models.backbones import build_backbone, feature_dim
from rela.models.layers import map_width
from rela.models.preprocessing import preprocessing_for
from rela.models.small_convolutions import use_small_convolutions
from rela.models.weights import save_weights, state_sha256
from rela.pipeline.cores import num_cores
from rela.pipeline.files import read_regular, replace_file
from rela.pipeline.spent import Spent
from rela.priors.earlier_run import BACKBONE_FILE, write_identity
from rela.priors.prior import PriorIdentity
from rela.representations.targets import Targets
from rela.training.checkpoints import RunCheckpoint, clear_useless, newest_checkpoint
from rela.training.diagnosis import Facts, facts_of_images, target_std
from rela.training.epoch_log import EpochLog
from rela.training.handover import AdaptiveHandOver, FixedHandOver, HandOver
from rela.training.initial_weights import load_initial
from rela.training.loggers import open_loggers, parse_loggers
from rela.training.map_loss import MapLoss
from rela.training.maps import MapFormat, MapTargets
from rela.training.precision import default_precision
from rela.training.progress import LiveProgress, remove_progress
from rela.training.run_directory import (
    CHECKPOINTS_DIR,
    METRICS_FILE,
    PROGRESS_FILE,
    SECONDS_FILE,
    keep_epochs,
    last_record,
)
from rela.training.settings import WHERE_TO_RUN, ResolvedSettings
from rela.training.two_stage import TwoStage

_CPU = "cpu"  # in SECONDS_FILE, beside the phases


@dataclass(frozen=True)
class TrainingOutcome:
    """Result of a training; `seconds` by phase and `cpu_seconds` include interrupted attempts."""

    seconds: dict[str, float]
    cpu_seconds: float
    num_steps: int
    handover_step: int | None
    final_loss: float | None
    online_accuracy: float | None
    num_devices: int
    is_global_zero: bool


def run_training(
    settings: ResolvedSettings,
    directory: Path,
    beton: Beton,
    targets: Targets | None,
    num_classes: int,
    name: str,
    start: Spent,
    say: Callable[[str], None],
    maps: MapTargets | None = None,
) -> TrainingOutcome:
    """Train on `beton`, resuming from the newest checkpoint in `directory` if there is one.

    `targets`: one row per image of the beton; None trains the algorithm only. `maps`: as many, for the loss
    on maps. `start`: the
    reading of the clocks when the job began. Writes metrics, TensorBoard events, two checkpoints and
    the exported backbone to `directory`. Raises KeyboardInterrupt on Ctrl-C; the run can be resumed.
    """
    _quieten()
    keep_freed_memory()
    options = device_options(settings.devices, 60 * settings.rank_timeout)
    options["precision"] = default_precision(settings.precision)
    is_first = current_ranks().rank == 0
    checkpoint_dir = directory / CHECKPOINTS_DIR
    newest = newest_checkpoint(checkpoint_dir, say)
    epochs_done = newest[1]["epochs_done"] if newest else 0
    seconds, cpu_seconds_before = _spent_so_far(directory, newest)
    before = sum(seconds.values())

    def cpu_seconds() -> float:  # processes of one training work alike
        mine = (Spent.now() - start).cpu_seconds
        return round(cpu_seconds_before + mine * current_ranks().world_size, 4)

    if is_first:
        remove_progress(directory / PROGRESS_FILE)  # left by a killed attempt
        keep_epochs(directory / METRICS_FILE, epochs_done)
    live = LiveProgress(directory / PROGRESS_FILE, is_first)
    try:
        begins_with = directory if settings.init is not None and newest is None else None
        module, loader = _build(settings, beton, targets, num_classes, begins_with, maps)
        if newest:
            say(_resuming(newest[1], settings, len(loader) // settings.accumulate))
        callbacks = [
            EpochLog(
                directory / METRICS_FILE,
                loader,
                seconds,
                _facts(settings, beton, module, loader, num_classes),
                live,
                say,
            ),
            RunCheckpoint(
                checkpoint_dir,
                seconds,
                cpu_seconds,
                60 * settings.checkpoint_minutes,
                newest[1]["step"] if newest else 0,
                say,
            ),
        ]
        shaping = {k: v for k, v in asdict(settings).items() if k not in WHERE_TO_RUN}
        with open_loggers(
            parse_loggers(settings.logger), directory, name, shaping, is_first
        ) as loggers:
            trainer = pl.Trainer(
                max_epochs=settings.epochs,
                accumulate_grad_batches=settings.accumulate,
                callbacks=callbacks,
                logger=loggers,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                gradient_clip_val=settings.optimizer_settings.clip_norm,
                **options,
            )
            if trainer.is_global_zero:
                clear_useless(checkpoint_dir, newest[0] if newest else None)
            seconds["startup"] = seconds.get("startup", 0.0) + (Spent.now() - start).seconds
            _fit(trainer, module, loader, None if newest is None else newest[0])
        if trainer.is_global_zero:
            export_backbone(directory, settings, module.method, name)
    finally:  # an interrupted attempt counts too
        live.clear()
        measured = sum(seconds.values()) - before
        own = (Spent.now() - start).seconds - measured
        seconds["other"] = seconds.get("other", 0.0) + own
        if is_first:
            remove_progress(directory / PROGRESS_FILE)
            _keep_spent(directory, seconds, cpu_seconds())
    last = last_record(directory / METRICS_FILE)
    return TrainingOutcome(
        seconds=seconds,
        cpu_seconds=cpu_seconds(),
        num_steps=trainer.global_step,
        handover_step=module.handover_step,
        final_loss=last.get("loss"),
        online_accuracy=last.get("online_accuracy"),
        num_devices=trainer.world_size,
        is_global_zero=trainer.is_global_zero,
    )


def _resuming(record: dict[str, Any], settings: ResolvedSettings, steps_per_epoch: int) -> str:
    epochs_done, step = record["epochs_done"], record["step"]
    if step == epochs_done * steps_per_epoch:
        return f"resuming after epoch {epochs_done} of {settings.epochs}"
    return f"resuming after step {step}, in epoch {epochs_done + 1} of {settings.epochs}"


def _spent_so_far(
    directory: Path, newest: tuple[Path, dict[str, Any]] | None
) -> tuple[dict[str, float], float]:
    """Seconds by phase and CPU seconds of earlier attempts.

    From SECONDS_FILE or, after a kill, from the checkpoint.
    """
    found: list[dict[str, float]] = [{}]
    if newest:
        found.append({**newest[1]["seconds"], _CPU: newest[1].get("cpu_seconds", 0.0)})
    with contextlib.suppress(OSError, ValueError, RecursionError):
        known = json.loads(read_regular(directory / SECONDS_FILE))
        durations = known.values() if isinstance(known, dict) else [None]
        if all(type(value) is float and 0 <= value < math.inf for value in durations):
            found.append(known)
    most = max(found, key=lambda spent: sum(spent.values()))
    return {phase: most[phase] for phase in most if phase != _CPU}, most.get(_CPU, 0.0)


def _keep_spent(directory: Path, seconds: dict[str, float], cpu_seconds: float) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide the original error
        spent = {**seconds, _CPU: cpu_seconds}
        replace_file(directory / SECONDS_FILE, json.dumps(spent).encode())


def _build(
    settings: ResolvedSettings,
    beton: Beton,
    targets: Targets | None,
    num_classes: int,
    begins_with: Path | None = None,
    maps: MapTargets | None = None,
) -> tuple[TwoStage, ViewLoader]:
    """The module and its data; `begins_with`: the directory with the initial weights, if not random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        num_images = num_chosen(len(beton), settings.data_ratio)
        method = build_method(settings, num_images, num_classes, begins_with)
        if settings.handover == 0 and not settings.anchor:
            targets = None
        loader = ViewLoader(
            beton,
            method.stage2_views() if targets is None else _stage1_views(settings, maps),
            settings.batch_size,
            settings.seed,
            settings.data_ratio,
            None if targets is None else targets.values,
            accumulate=settings.accumulate,
            crops=None if targets is None else targets.crops,
            num_threads=max(1, num_cores() // current_ranks().local_size),
            maps=None if targets is None else maps,
        )
        num_steps = settings.epochs * len(loader) // settings.accumulate
        handover = None if targets is None else _handover(settings, num_steps)
        target_width = 0 if targets is None else targets.values.shape[1]
        map_format = None if maps is None or handover is None else maps.format
        module = build_module(
            settings, method, loader, num_steps, handover, target_width, map_format
        )
        if handover is None:
            module.load_for_stage2()
        return module, loader


def build_method(
    settings: ResolvedSettings, num_images: int, num_classes: int, begins_with: Path | None = None
) -> Method:
    """The algorithm around a new backbone; `num_images` per epoch, `num_classes` 0 without labels.

    `begins_with`: the run's directory, to begin with the weights kept there.
    """
    backbone = build_backbone(settings.model, settings.image_size, settings.seed)
    if begins_with is not None:
        load_initial(backbone, begins_with)
    options = MethodOptions(
        feature_dim=feature_dim(backbone, settings.image_size),
        image_size=settings.image_size,
        num_images=num_images,
        num_classes=num_classes,
        hyperparameters=settings.hyperparameters,
        ema=settings.ema,
        local_crops=settings.local_crops,
        min_scale=settings.min_scale,
        epochs=settings.epochs,
    )
    return method_class(settings.method)(backbone, options)


def build_module(
    settings: ResolvedSettings,
    method: Method,
    loader: ViewLoader,
    num_steps: int,
    handover: HandOver | None,
    target_width: int,
    map_format: MapFormat | None = None,
) -> TwoStage:
    """The module to train; without `handover` it starts in stage 2."""
    learns_head, map_loss = settings.head == "learned", None
    if map_format is not None:
        channels = map_width(method.backbone, settings.image_size)
        map_loss = MapLoss(channels, map_format, settings.dense or 0.0, learns_head)
    module = TwoStage(
        method, loader, settings.optimizer_settings, num_steps, handover, target_width,
        learns_head, settings.seed, memory_format(settings), settings.anchor, map_loss,
    )  # fmt: skip
    if not torch.cuda.is_available():
        use_small_convolutions(module)
    return module.to(memory_format=memory_format(settings))


def _stage1_views(settings: ResolvedSettings, maps: MapTargets | None) -> tuple[View, ...]:
    """Those of the paper; never mirrored where a map of the whole image would have to be mirrored, too.

    Features of a mirrored image are not the mirrored features.
    """
    views = stage1_views(settings.image_size)
    if maps is None or maps.crops is not None:
        return views
    return tuple(replace(view, flip_probability=0.0) for view in views)


def _facts(
    settings: ResolvedSettings, beton: Beton, module: TwoStage, loader: ViewLoader, num_classes: int
) -> Facts:
    return Facts(
        method=settings.method,
        num_steps=module.num_steps,
        images_per_epoch=len(loader) * loader.batch_size,
        lr=settings.optimizer_settings.lr,
        image_size=settings.image_size,
        is_adaptive=isinstance(module.handover, AdaptiveHandOver),
        warmup_epochs=settings.optimizer_settings.warmup_epochs,
        num_cores=loader.num_threads,
        target_std=None if loader.targets is None else target_std(loader.targets),
        **facts_of_images(beton, num_classes),
    )


def _handover(settings: ResolvedSettings, num_steps: int) -> HandOver | None:
    if settings.handover is None:
        return AdaptiveHandOver()
    if settings.handover == 0:
        return None
    stage1_steps = round(settings.handover * num_steps)
    # stage 1 only: no hand-over after the last step
    return FixedHandOver(stage1_steps + (stage1_steps >= num_steps))


def _fit(
    trainer: pl.Trainer, module: TwoStage, loader: ViewLoader, checkpoint: Path | None
) -> None:
    """Call Trainer.fit; Ctrl-C raises KeyboardInterrupt instead of Lightning's SystemExit."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        with torch.random.fork_rng(devices=[]):  # the module seeds itself
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        cause = error.__context__
        raise KeyboardInterrupt(*(() if cause is None else cause.args)) from error
    except RuntimeError as error:
        if trainer.world_size > 1 and is_lost_connection(error):
            raise LostRankError(lost_rank_message(error)) from error
        raise
    finally:
        signal.signal(signal.SIGINT, handler)


def memory_format(settings: ResolvedSettings) -> torch.memory_format:
    """Channels last, except on the CPU for small-image stems, whose wide early layers it slows down."""
    slower = settings.model.endswith("_small") and not torch.cuda.is_available()
    return torch.contiguous_format if slower else torch.channels_last


def export_backbone(directory: Path, settings: ResolvedSettings, method: Method, name: str) -> None:
    """Write the trained network as a file that torchvision loads, with its identity as a prior."""
    backbone = method.exported
    save_weights(
        directory / BACKBONE_FILE,
        backbone,
        {"arch": settings.model, "image_size": str(settings.image_size)},
    )
    identity = PriorIdentity(
        name=name,
        arch=settings.model,
        image_size=settings.image_size,
        weights_sha256=state_sha256(backbone.state_dict()),
        preprocessing=preprocessing_for(settings.image_size),
        feature_dim=method.options.feature_dim,
    )
    write_identity(directory, identity)


def _quieten() -> None:
    """Silence Lightning's advice on choices made here; errors still appear."""
    for logger in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
