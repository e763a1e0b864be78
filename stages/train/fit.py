"""A prepared run directory → a trained, exported and published run, in one or several processes."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.distributed.ranks import LAUNCHER_VARIABLE, current_ranks
from rela.errors import ChoiceError, DataError, LostRankError
from rela.models.own_code.networks import MODULE_PREFIX, said_of_code
from rela.pipeline.errors import BusyError
from rela.pipeline.files import clear_abandoned_files, fsync, write_atomic
from rela.pipeline.fingerprint import file_sha256
from rela.pipeline.locks import exclusive, holder, in_use
from rela.pipeline.manifest import Manifest, provenance
from rela.pipeline.spent import Spent
from rela.result import Result
from rela.stages.priors.find import shown_name
from rela.stages.train.maps import open_map_targets
from rela.stages.train.processes import (
    STARTED_VARIABLE,
    Announce,
    is_another_rank,
    train_on_several,
)
from rela.stages.train.resolve import say_if_too_short
from rela.stages.train.targets import TARGETS_FILE, make_targets
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations, Targets
from rela.stages.workspace.run import (
    CONFIG_FILE,
    COST_FILE,
    DIGESTED_FILES,
    LOCK_FILE,
    Config,
    Run,
    begun_from,
    cost_of,
    read_config,
    train_words,
)
from rela.stages.workspace.workspace import Workspace, open_as
from rela.training.run_directory import INITIAL_FILE
from rela.training.settings import ResolvedSettings

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, repr=False)
class TrainResult(Result):
    """A finished run; `cached`: it was finished before this call; `warnings` that this call said."""

    artifact: Run
    cached: bool
    warnings: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """As of the run."""
        return {**self.artifact.shown(), "cached": self.cached}


def finished_before(run: Run) -> TrainResult:
    """The result of a training that is done already, rid of what it left if it was killed at its very end.

    Raises CorruptArtifactError if the run is damaged.
    """
    run.verify_quickly()
    _remove_start(run.path)
    return TrainResult(run, True)


def fit_run(
    workspace: Workspace,
    dataset: DataSet,
    representations: Representations | None,
    directory: Path,
    config: Config,
    say: Callable[[str], None],
    announce: Announce,
    initial: "nn.Module | None" = None,
) -> TrainResult:
    """Lock the directory, make the targets, train, and publish the manifest last.

    `initial`: the model with the weights that a new run begins with, if they are not random.
    """
    start = Spent.now()
    from rela.training.initial_weights import write_initial
    from rela.training.precision import choose_precision
    from rela.training.run import memory_format

    directory.mkdir(parents=True, exist_ok=True)
    # one process holds the lock for all: the launcher, or rank 0
    is_inner = is_another_rank() or LAUNCHER_VARIABLE in os.environ
    lock = contextlib.nullcontext() if is_inner else _only_here(directory)
    read = [artifact.path for artifact in (dataset, representations) if artifact is not None]
    with lock, in_use(*read):
        clear_abandoned_files(directory)
        finished = open_as(Run, directory)
        if finished is not None:
            return finished_before(finished)
        if (directory / CONFIG_FILE).is_file():
            found = read_config(directory)
            if found.fingerprint != config.fingerprint:
                raise BusyError(f"{directory} was just taken by another run; run the command again")
            settings = replace(config.settings, init=found.settings.init)  # may have another name
            config = replace(found, settings=settings)  # may differ in WHERE_TO_RUN
        else:
            resolved = ResolvedSettings(**vars(config.settings))
            precision = choose_precision(resolved, memory_format(resolved), say)
            config = replace(config, precision=precision)
            if initial is not None:
                write_initial(directory, initial)
            config.write(directory)
        return _run_locked(
            workspace, dataset, representations, directory, config, start, say, announce
        )


@contextlib.contextmanager
def _only_here(directory: Path) -> Iterator[None]:
    """Hold the lock of a run; raises BusyError if another process trains it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(directory / LOCK_FILE))
        except BusyError as error:
            by = holder(directory / LOCK_FILE)
            if by is None:
                raise
            raise BusyError(
                f"run {directory.name} is being trained by another process ({by}); "
                "`rela status --watch` shows its progress"
            ) from error
        yield


def _run_locked(
    workspace: Workspace,
    dataset: DataSet,
    representations: Representations | None,
    directory: Path,
    config: Config,
    start: Spent,
    say: Callable[[str], None],
    announce: Announce,
) -> TrainResult:
    from rela.data.sampling import num_batches
    from rela.distributed.strategy import num_devices
    from rela.models.backbones import model_width
    from rela.representations.projection import DEFAULT_VARIANCE_SHARE
    from rela.representations.targets import open_targets
    from rela.training.precision import has_bf16
    from rela.training.run import run_training

    # "auto" is resolved once, where the run begins; resuming elsewhere keeps it
    settings = ResolvedSettings(**{**vars(config.settings), "precision": config.precision})
    beton = dataset.open()
    targets, target_artifact = None, None
    if representations is not None:
        width = model_width(settings.model, settings.image_size)
        share = DEFAULT_VARIANCE_SHARE if settings.target_width is None else None
        width = min(width, settings.target_width or width)
        before_targets = Spent.now()
        target_artifact = make_targets(workspace, representations, width, share, say)
        start += Spent.now() - before_targets  # charged to the targets
        _refuse_other_images(target_artifact, dataset)
        path = target_artifact.sound_file(TARGETS_FILE)
        targets = open_targets(path, len(beton), verify=False)
    maps = _maps_of(workspace, dataset, directory, config)
    several = 1 if current_ranks().world_size > 1 else num_devices(settings.devices)
    if several > 1 and settings.model.startswith(MODULE_PREFIX):
        raise ChoiceError(
            f"--devices {settings.devices} starts {several} processes, which are not given "
            f"{settings.model}: start your script in each by torchrun, or choose one device"
        )
    if several > 1:
        began = time.time() - (Spent.now() - start).seconds
        train_on_several(workspace, directory.name, settings, several, began)
        return TrainResult(_published(directory), False)
    announce(directory.name)
    if STARTED_VARIABLE in os.environ:
        waited = time.time() - float(os.environ[STARTED_VARIABLE])
        start = Spent(time.perf_counter() - waited)  # all CPU seconds of this process
    per_epoch = num_batches(len(beton), settings.data_ratio, settings.batch_size)
    num_steps = settings.epochs * per_epoch
    target_width = 0 if targets is None else targets.values.shape[1]
    described = describe_run(
        directory.name, dataset, settings, representations, target_width, num_steps,
        is_longer=config.extends is not None,
    )  # fmt: skip
    say(described)
    say(f"  all settings are in {directory / CONFIG_FILE}; --verbose prints them")
    if config.settings.precision == "auto" and settings.precision == "32-true" and has_bf16():
        say("  this processor has bfloat16: --precision fastest uses it if it is faster")
    say_if_too_short(settings, num_steps, say)
    num_classes = len(dataset.content.class_names)
    used = [each.path for each in (target_artifact, maps) if each is not None]
    with in_use(*used):
        map_targets = None if maps is None else open_map_targets(maps, len(beton))
        outcome = run_training(
            settings,
            directory,
            beton,
            targets,
            num_classes,
            directory.name,
            start,
            say,
            map_targets,
        )
    if not outcome.is_global_zero:
        sys.exit(0)  # rank 0 publishes
    costs = cost_of(
        dataset, representations, target_artifact, outcome.seconds, outcome.cpu_seconds,
        outcome.num_devices,
    )  # fmt: skip
    write_atomic(directory / COST_FILE, json.dumps(costs, indent=1).encode())
    for name in DIGESTED_FILES:  # a training does not wait for the disk when it writes them
        fsync(directory / name)
    manifest = Manifest(
        kind="run",
        fingerprint=config.fingerprint,
        inputs={
            "dataset": dataset.fingerprint,
            "images": dataset.images_sha256(),
            **({} if target_artifact is None else {"targets": target_artifact.fingerprint}),
        },
        parameters=asdict(config.settings),
        content={
            "dataset": dataset.name,
            "num_images": len(beton),
            "prior": None if representations is None else shown_name(representations),
            "handover_step": outcome.handover_step,
            "num_steps": outcome.num_steps,
            "final_loss": outcome.final_loss,
            "online_accuracy": outcome.online_accuracy,
        },
        file_sha256={name: file_sha256(directory / name) for name in DIGESTED_FILES},
        provenance=provenance(
            Spent(sum(outcome.seconds.values()), outcome.cpu_seconds),
            _command(workspace, dataset, representations, directory, config),
        )
        | said_of_code(settings.model),
    )
    manifest.write(directory)
    _remove_start(directory)
    return TrainResult(Run(directory, manifest), False)


def _command(
    workspace: Workspace,
    dataset: DataSet,
    representations: Representations | None,
    directory: Path,
    config: Config,
) -> list[str]:
    """The words of the command that trains the same run again; none if it extends one that is gone."""
    if config.extends is None:
        prior = None if representations is None else shown_name(representations)
        words = train_words(dataset.name, prior, config.settings)
        return [*words, "--name", directory.name]
    before = next((run for run in workspace.runs() if run.fingerprint == config.extends), None)
    if before is None:
        return []
    return [
        "rela",
        "train",
        "--resume",
        "--name",
        before.name,
        "--epochs",
        str(config.settings.epochs),
    ]


def _remove_start(directory: Path) -> None:
    """Remove the weights that a finished run began with: its checkpoint has more."""
    with contextlib.suppress(OSError):  # others may only read the workspace
        (directory / INITIAL_FILE).unlink()


def _maps_of(
    workspace: Workspace, dataset: DataSet, directory: Path, config: Config
) -> Representations | None:
    """The maps of --dense that the run began with; raises ChoiceError if they are gone."""
    if config.maps is None:
        return None
    maps = workspace.representations_by_key(dataset.images_sha256(), config.maps)
    if maps is None:
        raise ChoiceError(
            f"the maps that run {directory.name} is trained on are missing ({config.maps[:12]}); embed "
            "them again as before, then resume"
        )
    return maps


def _published(directory: Path) -> Run:
    """The run published by the started processes."""
    run = open_as(Run, directory)
    if run is None:
        raise LostRankError(
            f"all processes ended before run {directory.name} was finished; resume with "
            f"`rela train --resume --name {directory.name}`"
        )
    return run


def _refuse_other_images(targets: Targets, dataset: DataSet) -> None:
    found, expected = targets.images_sha256, dataset.images_sha256()
    if found != expected:
        raise DataError(
            f"{targets.path} belongs to other images ({found[:12]}) than data set {dataset.name} "
            f"({expected[:12]}); embed this data set"
        )


def describe_run(
    name: str,
    dataset: DataSet,
    settings: ResolvedSettings,
    representations: Representations | None,
    target_width: int,
    num_steps: int,
    is_longer: bool = False,
) -> str:
    """Data, prior, model, budget and device in a line each; `is_longer`: it extends a finished run."""
    from rela.distributed.strategy import device_words

    prior = "none: the algorithm alone"
    if representations is not None:
        crops = f", {settings.crops} crops per image" if settings.crops else ""
        dense = f", maps with weight {settings.dense:g}" if settings.dense else ""
        prior = f"{shown_name(representations)}, targets of {target_width} components{crops}{dense}"
    batches = f"{num_steps:,} steps of {settings.batch_size} images"
    epochs = f"{settings.epochs:,} epoch{'s' * (settings.epochs != 1)}"
    share = f" of {100 * settings.data_ratio:g} % of the images" if settings.data_ratio < 1 else ""
    stages = ""
    if representations is not None:
        when = "by the adaptive rule"
        if settings.handover is not None:
            when = f"after {round(settings.handover * num_steps):,} steps"
        stages = ", stage 1 only" if settings.handover == 1 else f", stage 2 begins {when}"
        if is_longer and settings.handover != 1:
            stages = ", stage 2 continues"
    size, init = settings.image_size, begun_from(settings)
    begins = "" if init is None else f", from the weights of {init}"
    return "\n".join(
        [
            f"run {name}",
            f"  data    {dataset.name}: {dataset.num_images('train'):,} images, {dataset.classes_in_words}",
            f"  prior   {prior}",
            f"  model   {settings.model}, views of {size}×{size} pixels, by {settings.method}{begins}",
            f"  budget  {epochs}{share}: {batches}{stages}",
            f"  device  {device_words(settings.devices)}, {settings.precision}",
        ]
    )


def all_settings(config: Config) -> str:
    """Every setting, for `--verbose`."""
    shown = {**asdict(config.settings), "prior": config.representations or "none"}
    return "\n".join(
        f"  {name}: {'–' if value is None else value}" for name, value in shown.items()
    )
