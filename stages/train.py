"""A data set and its targets → a trained backbone. The prior is never loaded here."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact, open_artifact
from pipeline.atomic import clear_abandoned_files, write_atomic
from pipeline.errors import BusyError
from pipeline.fingerprint import file_sha256, fingerprint
from pipeline.lock import exclusive
from pipeline.manifest import Manifest, provenance
from pipeline.usage import in_use
from rela.errors import ChoiceError, DataError, LostRankError, RelaError
from rela.ranks import LAUNCHER_VARIABLE, current_ranks
from rela.run_directory import CHECKPOINTS_DIR
from stages.chosen_prior import NO_PRIOR, RANDOM_PRIOR, chosen_representations
from stages.convert import beton_path, images_sha256
from stages.embed import crops_of, prior_of
from stages.hyperparameters import resolve_hyperparameters, say_if_too_short
from stages.launch import STARTED_VARIABLE, train_on_several
from stages.ranks import Teller, first_of_several, is_another_rank, prepared_run, silent
from stages.run_files import (
    CONFIG_FILE,
    COST_FILE,
    DIGESTED_FILES,
    cost_of,
    loading_snippet,
    read_config,
)
from stages.settings import TrainSettings
from stages.targets import TARGETS_FILE, make_targets
from stages.train_settings import resolve_settings, say_what_means_nothing, training_plan
from stages.workspace import Workspace, check_name

STAGE_VERSION = 3
WHERE_FIELDS = ("devices", "checkpoint_minutes", "rank_timeout")  # do not change the weights


@dataclass(frozen=True)
class TrainResult:
    """A finished run, and whether it was there already."""

    artifact: Artifact
    cached: bool


def format_result(result: TrainResult) -> str:
    """Where the run is, and how to load what it trained."""
    run = result.artifact
    if result.cached:
        return f"run {run.name} with these settings is finished already: {run.path}"
    return f"run {run.name} is finished: {run.path}\n{loading_snippet(run)}"


def train(
    workspace: Workspace,
    dataset: Artifact,
    settings: TrainSettings,
    name: str | None = None,
    embed_first: bool = False,
    say: Callable[[str], None] = print,
) -> TrainResult:
    """Train, or find that a run with these very settings is finished; an interrupted one goes on.

    Raises ChoiceError with the command to use if the prior has not been embedded for this data set
    and `embed_first` is not set.
    """
    if is_another_rank():
        return _join(workspace, settings)
    with first_of_several(60 * settings.rank_timeout) as tell:
        return _train(workspace, dataset, settings, name, embed_first, say, tell)


def _train(
    workspace: Workspace,
    dataset: Artifact,
    settings: TrainSettings,
    name: str | None,
    embed_first: bool,
    say: Callable[[str], None],
    tell: Teller,
) -> TrainResult:
    resolved = resolve_settings(dataset, settings)
    say_what_means_nothing(settings, resolved, say)
    # before hours of embedding, everything that can be refused is
    resolved = resolve_hyperparameters(resolved, dataset.manifest.content["labelled"])
    if embed_first:
        _check_model(resolved)
    representations = chosen_representations(workspace, dataset, resolved, embed_first, say)
    config = _config(dataset, resolved, representations)
    finished = _finished(workspace, config, name)
    if finished is not None:
        return TrainResult(finished, True)
    for directory in workspace.unfinished_runs():
        same_settings = read_config(directory)["fingerprint"] == config["fingerprint"]
        if same_settings and name in (None, directory.name):
            say(f"going on with the interrupted run {directory.name}")
            return _run(workspace, dataset, representations, directory, config, say, tell)
    directory = _new_run_directory(workspace, dataset, resolved, name)
    try:
        return _run(workspace, dataset, representations, directory, config, say, tell)
    except RelaError as error:
        never_began = not (directory / CHECKPOINTS_DIR).is_dir()
        if never_began and error.exit_status != LostRankError.exit_status:  # nothing to resume
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _check_model(settings: TrainSettings) -> None:
    """Raise ChoiceError now if the model cannot be built for this input size."""
    from rela.backbones import build_backbone, feature_dim

    assert settings.model is not None and settings.image_size is not None
    feature_dim(build_backbone(settings.model, settings.image_size, seed=0), settings.image_size)


def find_run(
    workspace: Workspace, dataset: Artifact, settings: TrainSettings, name: str | None = None
) -> Artifact | None:
    """The finished run that `train` would return at once; nothing is embedded, built or written."""
    resolved = resolve_settings(dataset, settings)
    try:
        representations = chosen_representations(
            workspace, dataset, resolved, False, silent, may_build=False
        )
    except ChoiceError:
        return None  # what is not embedded, nobody has learned from
    resolved = resolve_hyperparameters(resolved, dataset.manifest.content["labelled"])
    return _finished(workspace, _config(dataset, resolved, representations), name)


def _finished(workspace: Workspace, config: dict[str, Any], name: str | None) -> Artifact | None:
    same = (run for run in workspace.runs() if run.fingerprint == config["fingerprint"])
    return next((run for run in same if name in (None, run.name)), None)


def resume(
    workspace: Workspace,
    name: str | None = None,
    say: Callable[[str], None] = print,
    where: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Go on with an interrupted run (the only one, or `name`) exactly as it was configured.

    `where`: settings among WHERE_FIELDS that are to differ.
    """
    where = where or {}
    if is_another_rank():
        return _join(workspace, replace(TrainSettings(), **where))
    with first_of_several(60 * where.get("rank_timeout", TrainSettings.rank_timeout)) as tell:
        unfinished = {path.name: path for path in workspace.unfinished_runs()}
        if name is None and len(unfinished) != 1:
            what = (
                f"name one of {', '.join(unfinished)} with --name"
                if unfinished
                else "nothing to resume"
            )
            raise ChoiceError(f"{len(unfinished)} interrupted runs in {workspace.root}: {what}")
        chosen = name or next(iter(unfinished))
        if chosen not in unfinished:
            finished = open_artifact(workspace.runs_dir / chosen)
            if finished is not None:
                return TrainResult(finished, True)
            raise ChoiceError(
                f"no interrupted run {chosen!r} in {workspace.root}; there is "
                f"{', '.join(unfinished) or 'none'}"
            )
        return _go_on(workspace, unfinished[chosen], where, say, tell)


def _join(workspace: Workspace, settings: TrainSettings) -> TrainResult:
    """In a process that was started beside a first one: take part in the run that it prepares."""
    directory = workspace.runs_dir / prepared_run(60 * settings.rank_timeout)
    if not (directory / CONFIG_FILE).is_file():
        raise DataError(
            f"{directory} is not here, but the first process has prepared it; put the workspace on a "
            "file system that all machines share"
        )
    where = {name: getattr(settings, name) for name in WHERE_FIELDS}
    return _go_on(workspace, directory, where, silent, silent)


def _go_on(
    workspace: Workspace,
    directory: Path,
    where: Mapping[str, Any],
    say: Callable[[str], None],
    tell: Teller,
) -> TrainResult:
    config = read_config(directory)
    config = {**config, "settings": {**config["settings"], **where}}
    dataset = workspace.dataset(config["dataset"]["name"])
    if dataset.fingerprint != config["dataset"]["fingerprint"]:
        raise ChoiceError(
            f"data set {dataset.name} has changed since run {directory.name} began; start a new run"
        )
    resolved = TrainSettings(**config["settings"])
    cached = workspace.representations(images_sha256(dataset, "train"))
    if resolved.prior not in (NO_PRIOR, *(a.fingerprint for a in cached)):
        raise ChoiceError(
            f"the representations that run {directory.name} learns from are gone "
            f"({config['representations']}); embed that prior again, then resume"
        )
    representations = chosen_representations(workspace, dataset, resolved, False, say)
    return _run(workspace, dataset, representations, directory, config, say, tell)


def _config(
    dataset: Artifact, settings: TrainSettings, representations: Artifact | None
) -> dict[str, Any]:
    """What `config.json` holds. What does not change the weights is no part of the fingerprint."""
    prior = None if representations is None else representations.fingerprint
    crops = None if representations is None else crops_of(representations)
    described = asdict(replace(settings, prior=prior or NO_PRIOR, crops=crops))
    meaning = {k: v for k, v in described.items() if k not in WHERE_FIELDS}
    content = dataset.manifest.content["splits"]["train"]
    return {
        "fingerprint": fingerprint(
            {
                "stage": "train",
                "version": STAGE_VERSION,
                "images": content["images_sha256"],
                "labels": content["labels_sha256"],
                "settings": meaning,
            }
        ),
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "settings": described,
        "representations": None if representations is None else representations.name,
    }


def _new_run_directory(
    workspace: Workspace, dataset: Artifact, settings: TrainSettings, name: str | None
) -> Path:
    from rela.backbones import model_names

    if name is not None:
        directory = workspace.runs_dir / check_name(name, "run")
        if name in model_names() or name in (NO_PRIOR, RANDOM_PRIOR):
            raise ChoiceError(f"--name {name} would hide the prior of that name; choose another")
        if directory.exists():
            raise ChoiceError(
                f"{directory} is another run, with other settings; choose another --name, or "
                "go on with it by --resume"
            )
        return directory
    number = 1
    while (workspace.runs_dir / f"{dataset.name}-{settings.method}-{number}").exists():
        number += 1
    return workspace.runs_dir / f"{dataset.name}-{settings.method}-{number}"


def _run(
    workspace: Workspace,
    dataset: Artifact,
    representations: Artifact | None,
    directory: Path,
    config: dict[str, Any],
    say: Callable[[str], None],
    tell: Teller,
) -> TrainResult:
    """Alone in the directory: make the targets, fit, and publish the manifest last."""
    start = time.perf_counter()
    from rela.training import resolve_precision

    directory.mkdir(parents=True, exist_ok=True)
    # one process locks for all that were started together: the one that starts them, or the first
    is_inner = is_another_rank() or LAUNCHER_VARIABLE in os.environ
    lock = contextlib.nullcontext() if is_inner else exclusive(directory / ".lock")
    read = [artifact.path for artifact in (dataset, representations) if artifact is not None]
    with lock, in_use(*read):
        clear_abandoned_files(directory)
        finished = open_artifact(directory)
        if finished is not None:
            return TrainResult(finished, True)
        if (directory / CONFIG_FILE).is_file():
            found = read_config(directory)
            if found["fingerprint"] != config["fingerprint"]:
                raise BusyError(f"{directory} was taken by another run just now; try again")
            given = {name: config["settings"][name] for name in WHERE_FIELDS}
            config = {**found, "settings": {**found["settings"], **given}}
        else:
            precision = resolve_precision(config["settings"]["precision"])
            config = {**config, "precision": precision}
            write_atomic(directory / CONFIG_FILE, json.dumps(config, indent=1).encode())
        return _run_locked(workspace, dataset, representations, directory, config, start, say, tell)


def _run_locked(
    workspace: Workspace,
    dataset: Artifact,
    representations: Artifact | None,
    directory: Path,
    config: dict[str, Any],
    start: float,
    say: Callable[[str], None],
    tell: Teller,
) -> TrainResult:
    from rela.backbones import build_backbone, feature_dim
    from rela.beton import open_beton
    from rela.devices import num_devices
    from rela.order import num_chosen
    from rela.projection import DEFAULT_VARIANCE_SHARE
    from rela.targets import open_targets
    from rela.training import run_training

    # "auto" was decided where the run began, and stays so wherever it goes on
    settings = TrainSettings(**{**config["settings"], "precision": config["precision"]})
    assert settings.model is not None and settings.image_size is not None
    beton = open_beton(beton_path(dataset, "train"))
    targets, target_artifact = None, None
    if representations is not None:
        width = feature_dim(
            build_backbone(settings.model, settings.image_size, seed=0), settings.image_size
        )
        share = DEFAULT_VARIANCE_SHARE if settings.target_width is None else None
        width = min(width, settings.target_width or width)
        before_targets = time.perf_counter()
        target_artifact = make_targets(workspace, representations, width, share, say)
        start += time.perf_counter() - before_targets  # those seconds are on the targets' account
        _refuse_other_images(target_artifact, dataset)
        path = target_artifact.sound_file(TARGETS_FILE)
        targets = open_targets(path, len(beton), verify=False)
    several = 1 if current_ranks().world_size > 1 else num_devices(settings.devices)
    if several > 1:
        began = time.time() - (time.perf_counter() - start)
        train_on_several(workspace, directory.name, settings, several, began)
        return TrainResult(_published(directory), False)
    tell(directory.name)
    if STARTED_VARIABLE in os.environ:
        start = time.perf_counter() - (time.time() - float(os.environ[STARTED_VARIABLE]))
    say(_resolved(directory.name, dataset, settings, representations))
    num_steps = settings.epochs * (
        num_chosen(len(beton), settings.data_ratio) // settings.batch_size
    )
    say_if_too_short(settings, num_steps, say)
    plan = training_plan(settings)
    num_classes = len(dataset.manifest.content["class_names"])
    with in_use(*([] if target_artifact is None else [target_artifact.path])):
        outcome = run_training(
            plan, directory, beton, targets, num_classes, directory.name, start, say
        )
    if not outcome.is_global_zero:
        sys.exit(0)  # this process has done its share; the first one publishes
    costs = cost_of(dataset, representations, target_artifact, outcome.seconds, outcome.num_devices)
    write_atomic(directory / COST_FILE, json.dumps(costs, indent=1).encode())
    manifest = Manifest(
        kind="run",
        fingerprint=config["fingerprint"],
        inputs={
            "dataset": dataset.fingerprint,
            "images": images_sha256(dataset, "train"),
            **({} if target_artifact is None else {"targets": target_artifact.fingerprint}),
        },
        parameters=config["settings"],
        content={
            "dataset": dataset.name,
            "prior": None if representations is None else prior_of(representations).name,
            "handover_step": outcome.handover_step,
            "num_steps": outcome.num_steps,
            "final_loss": outcome.final_loss,
            "online_accuracy": outcome.online_accuracy,
        },
        file_sha256={name: file_sha256(directory / name) for name in DIGESTED_FILES},
        provenance=provenance(sum(outcome.seconds.values())),
    )
    manifest.write(directory)
    return TrainResult(Artifact(directory, manifest), False)


def _published(directory: Path) -> Artifact:
    """What the processes that were started made of the run."""
    run = open_artifact(directory)
    if run is None:
        raise LostRankError(
            f"all processes ended before run {directory.name} was finished; go on with "
            f"`rela train --resume --name {directory.name}`"
        )
    return run


def _refuse_other_images(targets: Artifact, dataset: Artifact) -> None:
    found, expected = targets.manifest.inputs["images"], images_sha256(dataset, "train")
    if found != expected:
        raise DataError(
            f"{targets.path} belongs to other images ({found[:12]}) than data set {dataset.name} "
            f"({expected[:12]}); embed this data set"
        )


def _resolved(
    name: str, dataset: Artifact, settings: TrainSettings, representations: Artifact | None
) -> str:
    prior = "none" if representations is None else prior_of(representations).name
    shown = {**asdict(settings), "prior": prior}
    if representations is not None and settings.handover is None:
        shown["handover"] = "adaptive"
    shown = {name: "–" if value is None else value for name, value in shown.items()}
    return "\n".join(
        [f"run {name} on data set {dataset.name}", *(f"  {k}: {v}" for k, v in shown.items())]
    )
