"""A data set and its targets → a trained backbone. The prior is never loaded here."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rela.errors import WARNING, ChoiceError, DataError, LostRankError, RelaError
from rela.models.own_code.networks import full_name, is_own
from rela.options import part_of
from rela.pipeline import Say
from rela.pipeline.errors import BusyError, CorruptArtifactError
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.locks import holder
from rela.pipeline.manifest import remedy
from rela.stages.display import next_command
from rela.stages.requests import Train, repeats_the_command
from rela.stages.snippets import pasteable, run_snippet
from rela.stages.train.directory import (
    is_soon_another,
    new_run_directory,
    remove_if_never_begun,
)
from rela.stages.train.extend import begin_extension, extended_config
from rela.stages.train.fit import TrainResult, all_settings, finished_before, fit_run
from rela.stages.train.maps import chosen_maps
from rela.stages.train.prior import NO_PRIOR, chosen_representations
from rela.stages.train.processes import (
    Announce,
    first_of_several,
    is_another_rank,
    prepared_run,
    silent,
)
from rela.stages.train.resolve import resolve_hyperparameters, resolve_settings, say_ignored_options
from rela.stages.train.snapshot import changed_since
from rela.stages.train.warm_start import WarmStart, begun_with, digest_of
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.run import (
    CONFIG_FILE,
    LOCK_FILE,
    Config,
    DataSetReference,
    Run,
    read_config,
)
from rela.stages.workspace.workspace import Workspace, open_as
from rela.training.settings import ADDED_LATER, WHERE_TO_RUN, TrainSettings

STAGE_VERSION = 4


def format_result(result: TrainResult) -> str:
    """The path of the run, a snippet that loads its backbone, warnings and the next command."""
    run = result.artifact
    if result.cached:
        longer = f"rela train --resume --name {run.name} --epochs {2 * run.settings.epochs}"
        return (
            f"run {run.name} with these settings is already finished: {run.path}; `{longer}` trains it "
            "for longer"
        )
    lines = [
        f"run {run.name} is finished: {run.path}",
        pasteable("load it with:", run_snippet(run)),
    ]
    if result.warnings:
        lines += ["warnings:", *(f"- {each}" for each in result.warnings)]
    return "\n".join([*lines, next_command("eval", run.name)])


class _Heard:
    """Passes messages on and remembers the warnings among them, to repeat them at the end."""

    def __init__(self, say: Say) -> None:
        self._say, self.warnings = say, list[str]()

    def __call__(self, message: str) -> None:
        if message.startswith(WARNING):
            self.warnings.append(message.removeprefix(WARNING))
        self._say(message)


@repeats_the_command("train")
def train(workspace: Workspace, request: Train, say: Say = print) -> TrainResult:
    """Train; return a finished run with equal settings, or resume an interrupted one.

    Raises ChoiceError with the command to use if the prior has not been embedded for this data set
    and `request.embed` is not set.
    """
    settings = part_of(request, TrainSettings)
    dataset = workspace.dataset(request.dataset)
    dataset.require_images()
    if is_another_rank():
        where = {name: getattr(settings, name) for name in WHERE_TO_RUN}
        return _join(workspace, where, settings.rank_timeout)
    heard = _Heard(say)
    with first_of_several(60 * settings.rank_timeout) as announce:
        result = _train(workspace, dataset, settings, request, heard, announce)
    return replace(result, warnings=tuple(heard.warnings))


def _train(
    workspace: Workspace,
    dataset: DataSet,
    settings: TrainSettings,
    request: Train,
    say: Say,
    announce: Announce,
) -> TrainResult:
    name, embed_first = request.name, request.embed
    settings, start = begun_with(workspace, dataset, settings)
    resolved = resolve_settings(dataset, settings)
    say_ignored_options(settings, resolved, say)
    # refuse invalid settings before hours of embedding
    resolved = resolve_hyperparameters(resolved, dataset.content.labelled)
    if embed_first:
        _check_feasible(dataset, resolved, start)
    representations = chosen_representations(workspace, dataset, resolved, embed_first, say)
    maps = chosen_maps(workspace, dataset, resolved, representations)
    config = _config(dataset, resolved, representations, maps)
    finished = _finished(workspace, config, name)
    if finished is not None:
        return finished_before(finished)
    if request.verbose:
        say(all_settings(config))
    for directory in workspace.unfinished_runs():
        same_settings = read_config(directory).fingerprint == config.fingerprint
        if same_settings and name in (None, directory.name):
            say(f"resuming the interrupted run {directory.name}")
            return fit_run(workspace, dataset, representations, directory, config, say, announce)
    initial = _check_feasible(dataset, resolved, start)
    if start is not None:
        say(f"{start.words}: {initial[1]}")
    while True:
        directory = new_run_directory(workspace, dataset, config, request)
        try:
            return fit_run(
                workspace, dataset, representations, directory, config, say, announce,
                None if start is None else initial[0],
            )  # fmt: skip
        except BusyError:  # another run, begun at the same moment, may have taken this number
            if name is not None or not is_soon_another(directory, config.fingerprint):
                raise
        except RelaError as error:
            if error.exit_status != LostRankError.exit_status:
                remove_if_never_begun(directory)
            raise


def _check_feasible(
    dataset: DataSet, settings: TrainSettings, start: WarmStart | None
) -> tuple[Any, str]:
    """The model at its start, if that is not random, and what is known of its weights.

    Raises ChoiceError if the model, the batches or the devices cannot be had, MisfitError if the weights do
    not fit.
    """
    from rela.data.sampling import num_batches
    from rela.distributed.strategy import num_devices
    from rela.models.backbones import model_width

    assert settings.model is not None and settings.image_size is not None
    model_width(settings.model, settings.image_size)
    built: tuple[Any, str] = None, ""
    if start is not None:
        built = start.backbone(settings.model, settings.image_size)
    num_batches(dataset.num_images("train"), settings.data_ratio, settings.batch_size)
    num_devices(settings.devices)
    return built


def find_run(
    workspace: Workspace, dataset: DataSet, settings: TrainSettings, name: str | None = None
) -> Run | None:
    """The finished run that `train` would return; embeds, builds and writes nothing."""
    try:
        resolved = resolve_settings(dataset, begun_with(workspace, dataset, settings, False)[0])
        representations = chosen_representations(
            workspace, dataset, resolved, False, silent, may_build=False
        )
        maps = chosen_maps(workspace, dataset, resolved, representations)
    except ChoiceError:
        return None  # not embedded, or not known here, so no run was trained on it
    resolved = resolve_hyperparameters(resolved, dataset.content.labelled)
    return _finished(workspace, _config(dataset, resolved, representations, maps), name)


def _finished(workspace: Workspace, config: Config, name: str | None) -> Run | None:
    same = (run for run in workspace.runs() if run.fingerprint == config.fingerprint)
    return next((run for run in same if name in (None, run.name)), None)


def resume(
    workspace: Workspace,
    name: str | None = None,
    say: Say = print,
    where: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    verbose: bool = False,
) -> TrainResult:
    """Resume an interrupted run (the only one, or `name`) with its own settings.

    `where`: values of WHERE_TO_RUN to use instead. `epochs`: extend a finished run to so many, as a new
    run that begins at its last checkpoint. `verbose`: say every setting.
    """
    where = where or {}
    rank_timeout = where.get("rank_timeout", TrainSettings.rank_timeout)
    if is_another_rank():
        return _join(workspace, where, rank_timeout)
    heard = _Heard(say)
    result = _resume(workspace, name, heard, where, epochs, verbose, rank_timeout)
    return replace(result, warnings=tuple(heard.warnings))


def _resume(
    workspace: Workspace,
    name: str | None,
    say: Say,
    where: Mapping[str, Any],
    epochs: int | None,
    verbose: bool,
    rank_timeout: float,
) -> TrainResult:
    with first_of_several(60 * rank_timeout) as announce:
        if epochs is not None:
            return _extend(workspace, name, epochs, where, verbose, say, announce)
        unfinished = {path.name: path for path in workspace.unfinished_runs()}
        by_name = {n: holder(path / LOCK_FILE) for n, path in unfinished.items()}
        interrupted = [n for n, by in by_name.items() if by is None]
        if name is None and len(interrupted) != 1:
            what = "nothing to resume"
            if interrupted:
                what = f"name one of {', '.join(interrupted)} with --name"
            elif unfinished:
                what = f"{', '.join(unfinished)} running; `rela status --watch` shows the progress"
            raise ChoiceError(f"{len(interrupted)} interrupted runs in {workspace.root}: {what}")
        chosen = name or interrupted[0]
        if chosen not in unfinished:
            finished = open_as(Run, workspace.runs_dir / chosen)
            if finished is not None:
                return finished_before(finished)
            raise ChoiceError(
                f"no interrupted run {chosen!r} in {workspace.root}; found "
                f"{', '.join(interrupted) or 'none'}"
            )
        return _go_on(workspace, unfinished[chosen], where, verbose, say, announce)


def _extend(
    workspace: Workspace,
    name: str | None,
    epochs: int,
    where: Mapping[str, Any],
    verbose: bool,
    say: Say,
    announce: Announce,
) -> TrainResult:
    """Extend a finished run, resume its interrupted extension, or return the finished one."""
    try:
        run = workspace.run(name)
    except ChoiceError as error:
        raise ChoiceError(f"--epochs with --resume extends a finished run: {error}") from error
    config = extended_config(run, epochs, where)
    dataset = workspace.dataset_of(config.dataset.name, config.dataset.fingerprint)
    key = _fingerprint(dataset, config.settings, config.extends, config.maps)
    config = replace(config, fingerprint=key)
    finished = _finished(workspace, config, None)
    if finished is not None:
        return finished_before(finished)
    begun = (
        path
        for path in workspace.unfinished_runs()
        if read_config(path).fingerprint == config.fingerprint
    )
    directory = next(begun, None) or begin_extension(workspace, run, config, say)
    return _go_on(workspace, directory, where, verbose, say, announce)


def _join(workspace: Workspace, where: Mapping[str, Any], rank_timeout: float) -> TrainResult:
    """On ranks other than 0: join the run that rank 0 prepares."""
    directory = workspace.runs_dir / prepared_run(60 * rank_timeout)
    if not (directory / CONFIG_FILE).is_file():
        raise DataError(
            f"{directory} is missing on this machine, but rank 0 has prepared it; put the workspace on a "
            "file system that all machines share"
        )
    return _go_on(workspace, directory, where, False, silent, silent)


def _go_on(
    workspace: Workspace,
    directory: Path,
    where: Mapping[str, Any],
    verbose: bool,
    say: Say,
    announce: Announce,
) -> TrainResult:
    config = read_config(directory)
    resolved = replace(config.settings, **where)
    if is_own(str(resolved.model)):
        full_name(str(resolved.model))  # raises what to do if its code is not here
    config = replace(config, settings=resolved)
    if verbose:
        say(all_settings(config))
    dataset = workspace.dataset_of(config.dataset.name, config.dataset.fingerprint)
    if dataset.fingerprint != config.dataset.fingerprint:
        raise changed_since(workspace, dataset, config, directory.name)
    if _fingerprint(dataset, resolved, config.extends, config.maps) != config.fingerprint:
        raise CorruptArtifactError(
            f"{directory / CONFIG_FILE} was changed after the run began, or comes from another version "
            f"of rela; {remedy(directory)}"
        )
    cached = workspace.representations(dataset.images_sha256())
    if resolved.prior not in (NO_PRIOR, *(a.fingerprint for a in cached)):
        raise ChoiceError(
            f"the representations that run {directory.name} is trained on are missing "
            f"({config.representations}); embed that prior again, then resume"
        )
    representations = chosen_representations(workspace, dataset, resolved, False, say)
    return fit_run(workspace, dataset, representations, directory, config, say, announce)


def _config(
    dataset: DataSet,
    settings: TrainSettings,
    representations: Representations | None,
    maps: Representations | None = None,
) -> Config:
    """The configuration of a new run."""
    prior = None if representations is None else representations.fingerprint
    crops = None if representations is None else representations.content.crops
    maps_key = None if maps is None else maps.fingerprint
    settings = replace(settings, prior=prior or NO_PRIOR, layer=None, crops=crops, maps=maps_key)
    return Config(
        _fingerprint(dataset, settings, maps=maps_key),
        DataSetReference(dataset.name, dataset.fingerprint),
        settings,
        None if representations is None else representations.name,
        maps=maps_key,
    )


def _fingerprint(
    dataset: DataSet, settings: TrainSettings, extends: str | None = None, maps: str | None = None
) -> str:
    """SHA-256 of everything that decides the weights.

    An extended run differs from one that was trained for so long from the start: its first epochs followed
    the schedule of the shorter one.
    """
    split = dataset.splits["train"]
    deciding = {
        name: digest_of(value) if name == "init" else value
        for name, value in asdict(settings).items()
        if name not in (*WHERE_TO_RUN, "maps") and not (name in ADDED_LATER and value is None)
    }
    return fingerprint(
        {
            "stage": "train",
            "version": STAGE_VERSION,
            "images": split.images_sha256,
            "labels": split.labels_sha256,
            "settings": deciding,
            **({} if extends is None else {"extends": extends}),
            **({} if maps is None else {"maps": maps}),
        }
    )
