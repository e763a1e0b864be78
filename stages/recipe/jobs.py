"""A recipe → its jobs: sweeps expanded, values checked, dependencies found, before anything runs."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, RelaError
from rela.options import check_options, closest, part_of
from rela.pipeline import Say
from rela.priors import PriorRequest
from rela.priors.names import WEIGHTS_SUFFIXES, is_called
from rela.priors.prior import JOINT
from rela.sources import default_name, find_kind
from rela.stages.embed.combine import check_request
from rela.stages.evaluate.evaluate import open_voc_of
from rela.stages.presets import preset
from rela.stages.priors.identify import refuse_unknown
from rela.stages.priors.layer import refuse_missing_layer
from rela.stages.priors.records import known_identities
from rela.stages.priors.requests import names_of
from rela.stages.recipe.file import FILE_PREFIX, Table, read_tables, recipe_file
from rela.stages.recipe.kinds import KINDS, ConvertJob, EvalJob, Job
from rela.stages.requests import Convert, Embed, Evaluate, Train
from rela.stages.settings import EvaluateSettings
from rela.stages.train.prior import NO_PRIOR, RANDOM_PRIOR
from rela.stages.train.resolve import check_settings, resolve_hyperparameters
from rela.stages.workspace.workspace import Workspace, check_name, slug
from rela.training.settings import TrainSettings

_MOST_JOBS = 10_000  # of one table
_SHOWN_ALWAYS = ("prior", "data_ratio", "method", "seed")


_IN_WORDS = {
    bool: "true or false", int: "an integer", float: "a number", str: "a string", Path: "a path",
    tuple: "a list",
}  # fmt: skip


def assignments(texts: Iterable[str]) -> dict[str, str]:
    """The values of `--set NAME=VALUE`; raises ChoiceError."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise ChoiceError(f"--set {text}: expected NAME=VALUE, such as --set data=path/to/data")
        found[name] = value
    return found


def load_recipe(
    path: Path, workspace: Workspace, given: Mapping[str, str] | None = None, say: Say = print
) -> list[Job]:
    """The jobs of the recipe at `path`, or of that name in rela, in the order in which they run.

    `given` fills placeholders. Raises ChoiceError, naming file, line and table, for every mistake that
    can be found without running a job.
    """
    jobs: list[Job] = []
    for table in read_tables(recipe_file(path, say), given or {}):
        try:
            for values, swept in _combinations(table):
                if table.stage == "eval" and "run" not in values:
                    jobs += _evaluations(workspace, jobs, table, values)
                else:
                    jobs.append(_job(workspace, jobs, table, values, swept))
        except RelaError as error:
            raise ChoiceError(f"{table.where}: {error}") from error
    return jobs


def _combinations(table: Table) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every combination of the swept values, the last key fastest, each with its swept part."""
    kind = KINDS[table.stage]
    kinds = kind.keys()
    choices: list[list[Any]] = []
    for key, value in table.values.items():
        if key not in kinds:
            every = {stage: other.keys() for stage, other in KINDS.items()}
            others = [f"[[{stage}]]" for stage, keys in every.items() if key in keys]
            meant = f"it belongs to {' and '.join(others)}" if others else closest(key, kinds)
            raise ChoiceError(f"unknown key {key!r}; {meant}")
        swept = isinstance(value, list) and kinds[key] is not tuple
        if value == []:
            raise ChoiceError(f"{key} = [] has no values; add some, or remove it")
        choices.append([_typed(key, v, kinds[key]) for v in (value if swept else [value])])
    missing = [key for key in kind.required() if key not in table.values]
    if missing:
        raise ChoiceError(f"{missing[0]} is missing")
    if math.prod(map(len, choices)) > _MOST_JOBS:
        raise ChoiceError(f"its sweeps give more than {_MOST_JOBS:,} jobs; sweep over fewer values")
    keys = list(table.values)
    several = [key for key, found in zip(keys, choices, strict=True) if len(found) > 1]
    combinations = (dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*choices))
    return [(values, {key: values[key] for key in several}) for values in combinations]


def _typed(key: str, value: Any, kind: type) -> Any:
    """The value in the type of its option; raises ChoiceError for another type."""
    if key == "prior" and isinstance(value, list) and value:
        return JOINT.join(_typed(key, part, str) for part in value)
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is tuple and isinstance(value, str):
        return (value,)
    if type(value) is not kind:
        shown = repr(value) if not isinstance(value, bool) else str(value).lower()
        raise ChoiceError(f"{key} = {shown}: expected {_IN_WORDS.get(kind, kind.__name__)}")
    return value


def _job(
    workspace: Workspace,
    jobs: list[Job],
    table: Table,
    values: dict[str, Any],
    swept: dict[str, Any],
) -> Job:
    stage, given = table.stage, dict(values)
    if stage == "eval":
        return _evaluation(workspace, jobs, table, given)
    request: Any = KINDS[stage].REQUEST(**{**preset(given.pop("preset", None)), **given})
    if stage == "convert":
        return _conversion(jobs, table, request)
    request = replace(request, dataset=_dataset(workspace, jobs, request.dataset))
    needs = _makers(jobs, "convert", request.dataset)
    prior = request.prior
    if stage == "embed":
        check_options(request)
        check_request(request)
        _check_files(request)
        shown = {"prior": prior, **swept}
    else:
        _check_training(jobs, request, swept)
        if request.init is not None:
            _check_init(workspace, jobs, request.init)
            needs += _makers(jobs, "train", request.init.removeprefix("run:"))
        shown = {key: getattr(request, key) for key in _SHOWN_ALWAYS} | swept
        if prior is not None:  # a prior embedded with its own options, or a combination
            needs += [i for i, job in enumerate(jobs) if job.embeds(prior, request.dataset)]
    for part in (prior or "").split(JOINT):
        needs += _makers(jobs, "train", part.removeprefix("run:"))
    if prior is not None:
        _check_priors(workspace, jobs, request)
    shown = {key: value for key, value in shown.items() if key not in ("dataset", "name")}
    named = [request.name] if stage == "train" and request.name is not None else []
    details = [f"{key}={'–' if value is None else _plain(value)}" for key, value in shown.items()]
    what = " ".join([request.dataset, *named, *details])
    return KINDS[stage](table.where, what, request, tuple(sorted(set(needs))))


def _check_priors(workspace: Workspace, jobs: list[Job], request: Embed | Train) -> None:
    """Raise ChoiceError for a prior that no job makes, and that is no model and unknown to the workspace."""
    special = (NO_PRIOR, RANDOM_PRIOR) if isinstance(request, Train) else ()
    for name in names_of(workspace, str(request.prior)):
        run, dataset = name.removeprefix("run:"), str(request.dataset)
        is_made = _makers(jobs, "train", run) or any(job.embeds(name, dataset) for job in jobs)
        known = known_identities(workspace, runs=True)
        if not (name in special or is_made or workspace.has_run(run)) and not any(
            is_called(each, name) for each in known
        ):
            refuse_unknown(workspace, PriorRequest(name))
        layers = [request.layer] if isinstance(request.layer, str) else request.layer or ()
        for layer in layers:
            arch = request.arch if isinstance(request, Embed) else None
            refuse_missing_layer(workspace, PriorRequest(name, arch=arch, layer=layer))


def _check_init(workspace: Workspace, jobs: list[Job], init: str) -> None:
    """Raise ChoiceError for weights to begin with that no job makes, and that are no file and no model."""
    name = init.partition("#")[0]
    run, path = name.removeprefix("run:"), Path(name.removeprefix(FILE_PREFIX))
    if _makers(jobs, "train", run) or workspace.has_run(run) or path.is_file():
        return
    if name.startswith(FILE_PREFIX) or path.suffix in WEIGHTS_SUFFIXES:
        raise ChoiceError(f"{path}: no such weights file")
    if not any(is_called(each, name) for each in known_identities(workspace, runs=True)):
        try:
            refuse_unknown(workspace, PriorRequest(name))
        except ChoiceError as error:
            raise ChoiceError(str(error).replace("--prior", "--init")) from error


def _conversion(jobs: list[Job], table: Table, request: Convert) -> Job:
    check_options(request)
    if request.more:
        raise ChoiceError("a recipe converts one source; convert several by `rela convert`")
    source = Path(request.source)
    find_kind(source, request.format)
    name = check_name(request.name or slug(default_name(source)), "data set")
    if _makers(jobs, "convert", name):
        raise ChoiceError(f"data set {name} is converted twice; give each its own name")
    return ConvertJob(table.where, name, replace(request, name=name))


def _check_files(request: Embed) -> None:
    """Raise ChoiceError for missing weights files now, instead of when they are read in hours."""
    paths = [] if request.weights is None else [Path(request.weights)]
    if str(request.prior).startswith(FILE_PREFIX):
        paths.append(Path(str(request.prior).removeprefix(FILE_PREFIX)))
    for path in paths:
        if not path.is_file():
            raise ChoiceError(f"{path}: no such weights file")


def _check_training(jobs: list[Job], request: Train, swept: dict[str, Any]) -> None:
    resolve_hyperparameters(check_settings(part_of(request, TrainSettings)), labelled=True)
    if request.model is not None and ":" not in request.model:
        from rela.models.backbones import parse_model_name

        parse_model_name(request.model)
    if request.name is not None:
        name = check_name(request.name, "run")
        if _makers(jobs, "train", name):
            among = f"; its sweep ({', '.join(swept)}) gives several runs" if swept else ""
            raise ChoiceError(f"run {name} is trained twice{among}; remove name, or choose others")


def _evaluations(
    workspace: Workspace, jobs: list[Job], table: Table, values: dict[str, Any]
) -> list[Job]:
    """One evaluation for every run of the recipe's train tables so far."""
    trained = [i for i, job in enumerate(jobs) if job.stage == "train"]
    if not trained:
        raise ChoiceError("there is no [[train]] above it; name a run, or move it below them")
    request = _checked_evaluation(Evaluate(**values))
    on = _conversions_of(workspace, jobs, request.dataset)
    return [
        EvalJob(table.where, jobs[i].what, request, tuple(sorted({*on, i})), i) for i in trained
    ]


def _evaluation(workspace: Workspace, jobs: list[Job], table: Table, values: dict[str, Any]) -> Job:
    run = values.pop("run")
    request = _checked_evaluation(Evaluate((run,), **values))
    made = _makers(jobs, "train", run)
    if not made:
        workspace.run(run)
    needs = {*made, *_conversions_of(workspace, jobs, request.dataset)}
    trained_by = made[0] if made else None
    return EvalJob(table.where, run, request, tuple(sorted(needs)), trained_by)


def _checked_evaluation(request: Evaluate) -> Evaluate:
    check_options(request)
    open_voc_of(part_of(request, EvaluateSettings))
    return request


def _dataset(workspace: Workspace, jobs: list[Job], name: str | None) -> str:
    """The name of a data set of the workspace or of the recipe; by default the recipe's only one."""
    converted = [job.request.name for job in jobs if job.stage == "convert"]
    if name in converted:
        return str(name)
    if name is None and len(converted) == 1:
        return str(converted[0])
    if name is None and converted:
        raise ChoiceError(f"dataset is missing; name one of {', '.join(converted)}")
    return workspace.dataset(name).name


def _conversions_of(workspace: Workspace, jobs: list[Job], dataset: str | None) -> list[int]:
    """The jobs that convert the data set named by an evaluation, if the recipe converts it."""
    if dataset is None:
        return []
    return _makers(jobs, "convert", _dataset(workspace, jobs, dataset))


def _makers(jobs: list[Job], stage: str, name: str) -> list[int]:
    """The jobs, by number, that make the data set or the run of this name."""
    return [i for i, job in enumerate(jobs) if job.stage == stage and job.request.name == name]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
