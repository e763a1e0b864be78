"""A recipe → its jobs: sweeps expanded, every value checked, who needs whom; before anything runs."""

import itertools
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, RelaError
from rela.options import check_options
from rela.priors import PriorRequest
from rela.priors.prior import JOINT
from rela.sources import default_name, find_kind
from rela.stages.evaluate.evaluate import open_voc_of
from rela.stages.priors.requests import prior_request, requests_of
from rela.stages.recipe.file import FILE_PREFIX, Table, closest, read_tables
from rela.stages.settings import ConvertSettings, EmbedSettings, EvaluateSettings, preset
from rela.stages.train.resolve import check_settings, resolve_hyperparameters
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace, check_name, slug
from rela.training.settings import TrainSettings

_MOST_JOBS = 10_000  # of one table
_SHOWN_ALWAYS = ("prior", "data_ratio", "method", "seed")


def _field_kinds(of: type, leave_out: tuple[str, ...] = ()) -> dict[str, type]:
    """The type of every field of a settings class, or of PriorRequest, `X | None` being X."""
    hints = typing.get_type_hints(of)
    kinds = {}
    for described in fields(of):
        if described.name not in leave_out:
            members = [k for k in typing.get_args(hints[described.name]) if k is not type(None)]
            origin = typing.get_origin(hints[described.name])
            kinds[described.name] = (
                tuple if origin is tuple else members[0] if members else hints[described.name]
            )
    return kinds


_PRIOR_KINDS = _field_kinds(PriorRequest, ("name",))
# what the command has beside its settings, and those
_OWN_KINDS: dict[str, dict[str, type]] = {
    "convert": {"source": Path, "name": str, "workers": int},
    "embed": {"dataset": str, "prior": str, **_PRIOR_KINDS, "split": str},
    "train": {"dataset": str, "name": str, "preset": str},
    "eval": {"run": str, "dataset": str, **_field_kinds(EmbedSettings, ("dtype", "crops"))},
}
_SETTINGS: dict[str, type] = {
    "convert": ConvertSettings,
    "embed": EmbedSettings,
    "train": TrainSettings,
    "eval": EvaluateSettings,
}
_REQUIRED = {"convert": ("source",), "embed": ("prior",)}
_IN_WORDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path",
    tuple: "a list",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One call of a stage.

    - `what`: the data set, and what distinguishes the job in its table;
    - `options`: what the stage takes beside `settings`;
    - `needs`: the earlier jobs, by number from 0, that make what this one reads;
    - `trained_by`: of an evaluation, the job whose run it measures; None for a run by name.
    """

    stage: str
    where: str
    what: str
    options: dict[str, Any]
    settings: Any
    needs: tuple[int, ...] = ()
    trained_by: int | None = None


def load_recipe(
    path: Path, workspace: Workspace, given: Mapping[str, str] | None = None
) -> list[Job]:
    """The jobs of the recipe at `path`, in the order in which they run.

    `given` fills placeholders. Raises ChoiceError, naming file, line and table, for anything that
    can be known to be wrong without running a job.
    """
    jobs: list[Job] = []
    for table in read_tables(path, given or {}):
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
    """Every combination of the swept values, the last key fastest; and what was swept of each."""
    own, settings = _OWN_KINDS[table.stage], _SETTINGS[table.stage]
    kinds = {**own, **_field_kinds(settings)}
    choices: list[list[Any]] = []
    for key, value in table.values.items():
        if key not in kinds:
            raise ChoiceError(f"unknown key {key!r}; {closest(key, kinds)}")
        swept = isinstance(value, list) and kinds[key] is not tuple
        if value == []:
            raise ChoiceError(f"{key} = [] has no values; give some, or leave it out")
        choices.append([_typed(key, v, kinds[key]) for v in (value if swept else [value])])
    missing = [key for key in _REQUIRED.get(table.stage, ()) if key not in table.values]
    if missing:
        raise ChoiceError(f"{missing[0]} is missing")
    if math.prod(map(len, choices)) > _MOST_JOBS:
        raise ChoiceError(f"its sweeps make more than {_MOST_JOBS:,} jobs; sweep over fewer values")
    keys = list(table.values)
    several = [key for key, found in zip(keys, choices, strict=True) if len(found) > 1]
    combinations = (dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*choices))
    return [(values, {key: values[key] for key in several}) for values in combinations]


def _typed(key: str, value: Any, kind: type) -> Any:
    """The value as its option takes it; raises ChoiceError for one of another type."""
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
    stage = table.stage
    options = {key: values[key] for key in _OWN_KINDS[stage] if key in values}
    chosen = {**preset(options.pop("preset", None)), **values}
    settings = _SETTINGS[stage](**{k: v for k, v in chosen.items() if k not in _OWN_KINDS[stage]})
    if stage == "convert":
        check_options(settings)
        return _conversion(jobs, table, options, settings)
    if stage == "eval":
        _check_evaluation(options, settings)
        return _evaluation(workspace, jobs, table, options, settings)
    options["dataset"] = _dataset(workspace, jobs, options.get("dataset"))
    needs = _makers(jobs, "convert", "name", options["dataset"])
    if stage == "embed":
        check_options(settings)
        prior = options["prior"]
        if options.setdefault("split", "train") not in ("train", "val"):
            raise ChoiceError(f"--split {options['split']}: expected one of train, val")
        _check_files(options)
        shown = {"prior": prior, **swept}
    else:
        prior = settings.prior
        _check_training(jobs, options, settings, swept)
        shown = {key: getattr(settings, key) for key in _SHOWN_ALWAYS} | swept
        if prior is not None:  # a prior embedded with options of its own, or in several parts
            needs += [
                i for i, job in enumerate(jobs) if embeds_prior(job, prior, options["dataset"])
            ]
    for part in (prior or "").split(JOINT):
        needs += _makers(jobs, "train", "name", part.removeprefix("run:"))
    shown = {key: value for key, value in shown.items() if key not in ("dataset", "name")}
    named = [options["name"]] if stage == "train" and "name" in options else []
    details = [f"{key}={'–' if value is None else _plain(value)}" for key, value in shown.items()]
    what = " ".join([options["dataset"], *named, *details])
    return Job(stage, table.where, what, options, settings, tuple(sorted(set(needs))))


def _conversion(jobs: list[Job], table: Table, options: dict[str, Any], settings: Any) -> Job:
    source = options["source"]
    find_kind(source, settings.format)
    if options.get("workers", 1) < 1:
        raise ChoiceError(f"--workers {options['workers']}: expected a number of at least 1")
    name = check_name(options.get("name") or slug(default_name(source)), "data set")
    if _makers(jobs, "convert", "name", name):
        raise ChoiceError(f"data set {name} is converted twice; give each its own name")
    return Job("convert", table.where, name, {**options, "name": name}, settings)


def _check_files(options: dict[str, Any]) -> None:
    """Weights that are read in hours to come had better be there now."""
    prior, named = options["prior"], options.get("weights")
    paths = [] if named is None else [named]
    if prior.startswith(FILE_PREFIX):
        paths.append(Path(prior.removeprefix(FILE_PREFIX)))
    for path in paths:
        if not path.is_file():
            raise ChoiceError(f"{path}: no such weights file")


def _check_training(
    jobs: list[Job], options: dict[str, Any], settings: TrainSettings, swept: dict[str, Any]
) -> None:
    resolve_hyperparameters(check_settings(settings), labelled=True)
    if settings.model is not None and ":" not in settings.model:
        from rela.models.backbones import parse_model_name

        parse_model_name(settings.model)
    if "name" in options:
        name = check_name(options["name"], "run")
        if _makers(jobs, "train", "name", name):
            among = f"; what is swept ({', '.join(swept)}) makes several" if swept else ""
            raise ChoiceError(f"run {name} is trained twice{among}; leave name out, or give others")


def _evaluations(
    workspace: Workspace, jobs: list[Job], table: Table, values: dict[str, Any]
) -> list[Job]:
    """One evaluation for every run of the recipe's train tables so far."""
    trained = [i for i, job in enumerate(jobs) if job.stage == "train"]
    if not trained:
        raise ChoiceError("no [[train]] stands above it; name a run, or put it after them")
    options = {key: value for key, value in values.items() if key in _OWN_KINDS["eval"]}
    settings = EvaluateSettings(**{k: v for k, v in values.items() if k not in options})
    _check_evaluation(options, settings)
    on = _conversions_of(workspace, jobs, options.get("dataset"))
    return [
        Job("eval", table.where, jobs[i].what, options, settings, tuple(sorted({*on, i})), i)
        for i in trained
    ]


def _evaluation(
    workspace: Workspace, jobs: list[Job], table: Table, options: dict[str, Any], settings: Any
) -> Job:
    made = _makers(jobs, "train", "name", options["run"])
    if not made:
        workspace.run(options["run"])
    needs = [*made, *_conversions_of(workspace, jobs, options.get("dataset"))]
    trained_by = made[0] if made else None
    job = Job("eval", table.where, options["run"], options, settings, tuple(sorted(set(needs))))
    return replace(job, trained_by=trained_by)


def _check_evaluation(options: dict[str, Any], settings: EvaluateSettings) -> None:
    check_options(settings)
    check_options(embedding_of(options))
    open_voc_of(settings)


def embedding_of(options: dict[str, Any]) -> EmbedSettings:
    """How an evaluation embeds: what its table says beside run, data set and protocols."""
    return EmbedSettings(**{k: v for k, v in options.items() if k not in ("run", "dataset")})


def embed_requests(workspace: Workspace, dataset: DataSet, job: Job) -> list[PriorRequest]:
    """The prior of a [[embed]], or several to be combined, with the options of its table."""
    how = {k: v for k, v in job.options.items() if k in _PRIOR_KINDS}
    names = [r.name for r in requests_of(workspace, dataset, job.options["prior"])]
    return [prior_request(dataset, name, **how) for name in names]


def _dataset(workspace: Workspace, jobs: list[Job], name: str | None) -> str:
    """The data set's name: of the workspace or of the recipe, whose only one is meant without one."""
    converted = [job.options["name"] for job in jobs if job.stage == "convert"]
    if name in converted:
        return str(name)
    if name is None and len(converted) == 1:
        return str(converted[0])
    if name is None and converted:
        raise ChoiceError(f"dataset is missing; name one of {', '.join(converted)}")
    return workspace.dataset(name).name


def _conversions_of(workspace: Workspace, jobs: list[Job], dataset: str | None) -> list[int]:
    """Who converts the data set that an evaluation names, if it names one and the recipe does."""
    if dataset is None:
        return []
    return _makers(jobs, "convert", "name", _dataset(workspace, jobs, dataset))


def embeds_prior(job: Job, prior: str, dataset: str) -> bool:
    """Whether the job embeds this data set by what trainings call `prior`."""
    if job.stage != "embed" or job.options["dataset"] != dataset or job.options["split"] != "train":
        return False
    weights, own = job.options.get("weights"), job.options["prior"]
    names = [own, Path(own.removeprefix(FILE_PREFIX)).stem]  # a file is called by its name
    if weights is not None:
        names.append(f"{own}@{weights.stem}")
    return prior in names


def _makers(jobs: list[Job], stage: str, key: str, name: str) -> list[int]:
    return [i for i, job in enumerate(jobs) if job.stage == stage and job.options.get(key) == name]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
