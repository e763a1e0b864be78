"""Evaluation of runs and priors on data sets, by the protocols of rela.evaluation."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.evaluation.protocols import PROTOCOLS, Protocol
from rela.evaluation.voc import VocFolder, open_voc
from rela.options import check_options, flag_name, part_of
from rela.pipeline import Say
from rela.pipeline.fingerprint import fingerprint
from rela.priors import PriorRequest
from rela.stages.embed.embed import STAGE_VERSION as EMBED_VERSION
from rela.stages.evaluate.chance import Chance, chance_of
from rela.stages.evaluate.probing import Probing
from rela.stages.priors.identify import identify
from rela.stages.priors.requests import names_of, prior_request
from rela.stages.requests import Evaluate
from rela.stages.settings import EmbedSettings, EvaluateSettings, PriorSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.evaluations import EVALUATION_FILE, FIRST_SEED, Measurements
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace, slug

STAGE_VERSION = 2


@dataclass(frozen=True)
class Evaluation:
    """The requested part of `eval.json` at `path` (see rela.stages.workspace.evaluations).

    `cached`: all results existed. `run` is the run's name, `parameters` its settings and `prior_name` the
    prior that it learned from. `chance`: what chance reaches on the validation images; None without labels.
    """

    path: Path
    results: dict[str, Any]
    cached: bool
    run: str | None = None
    parameters: dict[str, Any] | None = None
    prior_name: str | None = None
    chance: Chance | None = None


def evaluate_run(
    workspace: Workspace,
    run: Run,
    dataset_name: str | None = None,
    settings: EvaluateSettings | None = None,
    embedding: EmbedSettings | None = None,
    say: Say = print,
) -> Evaluation:
    """Evaluate a finished run on `dataset_name`, by default the data set it was trained on.

    Existing results of protocols and probe seeds are reused.
    """
    settings = settings or EvaluateSettings()
    own_name, own_key = run.content.dataset, run.dataset_fingerprint
    dataset, path = None, run.path / EVALUATION_FILE
    if dataset_name is not None or needs_dataset(settings):
        dataset = workspace.dataset(dataset_name or own_name)
        if dataset.fingerprint != own_key:
            path = run.path / f"eval-{dataset.name}.json"
    name, key = (own_name, own_key) if dataset is None else (dataset.name, dataset.fingerprint)
    request = PriorRequest(f"run:{run.name}")
    found = _evaluate(workspace, dataset, (name, key), request, path, settings, embedding, say)
    parameters, prior = run.manifest.parameters, run.content.prior
    return replace(found, run=run.name, parameters=parameters, prior_name=prior)


def evaluate(workspace: Workspace, request: Evaluate, say: Say = print) -> list[Evaluation]:
    """Evaluate the named runs, the only run, `all` runs, or a prior as a baseline for them."""
    described, settings = part_of(request, PriorSettings), part_of(request, EvaluateSettings)
    embedding = part_of(request, EmbedSettings)
    if request.prior is None:
        plain = PriorSettings()
        given = [n for n in vars(described) if getattr(described, n) != getattr(plain, n)]
        if given:
            raise ChoiceError(f"{', '.join(map(flag_name, given))} require --prior; add it")
        if request.names and request.all:
            raise ChoiceError("give names of runs or --all, not both")
        return _evaluate_runs(workspace, request, settings, embedding, say)
    if request.names or request.all:
        raise ChoiceError("give a run or --prior, not both")
    if len(names := names_of(workspace, request.prior)) > 1:
        raise ChoiceError(
            f"rela eval measures one prior at a time, but {len(names)} were given; choose one of "
            f"{', '.join(names)}, or compare them with `rela priors rank`"
        )
    wanted = request.dataset is not None or needs_dataset(settings)
    dataset = workspace.dataset(request.dataset) if wanted else None
    prior = prior_request(dataset, request.prior, described)
    name_and_key = (None, None) if dataset is None else (dataset.name, dataset.fingerprint)
    return [_evaluate(workspace, dataset, name_and_key, prior, None, settings, embedding, say)]


def _evaluate_runs(
    workspace: Workspace,
    request: Evaluate,
    settings: EvaluateSettings,
    embedding: EmbedSettings,
    say: Say,
) -> list[Evaluation]:
    """Evaluate each run; with `all`, runs without a usable data set are skipped with a message."""
    if request.all:
        chosen = workspace.runs() or [workspace.run()]
    else:
        names = dict.fromkeys(request.names)
        chosen = [workspace.run(name) for name in names] or [workspace.run()]
    open_voc_of(settings)
    found, reasons = [], []
    for run in chosen:
        try:
            found.append(evaluate_run(workspace, run, request.dataset, settings, embedding, say))
        except ChoiceError as error:
            if not request.all:
                raise
            reasons.append(error)
            say(f"skipped run {run.name}: {error}")
    if not found:
        raise reasons[0]
    return found


def needs_dataset(settings: EvaluateSettings) -> bool:
    """Whether any protocol measures on a data set of the workspace."""
    return any(PROTOCOLS[name].data != "voc" for name in settings.protocol)


def _evaluate(
    workspace: Workspace,
    dataset: DataSet | None,
    dataset_identity: tuple[str | None, str | None],
    request: PriorRequest,
    path: Path | None,
    settings: EvaluateSettings,
    embedding: EmbedSettings | None,
    say: Say,
) -> Evaluation:
    check_options(settings)
    embedding = embedding or EmbedSettings()
    check_options(embedding)
    if any(PROTOCOLS[name].data == "labels" for name in settings.protocol):
        assert dataset is not None
        if not dataset.content.labelled:
            raise ChoiceError(
                f"data set {dataset.name} has no labels; this protocol requires class folders"
            )
        dataset.split("val")
    voc = open_voc_of(settings)
    model = identify(workspace, request)
    dataset_name, dataset_key = dataset_identity
    # features in another number format differ
    identity = {"model": model.identity.key(), "dtype": embedding.dtype, "dataset": dataset_key}
    subject = fingerprint(identity)
    if path is None:
        words = [dataset_name, slug(model.identity.name), subject[:12]]
        path = workspace.evaluations_dir / ("-".join(word for word in words if word) + ".json")
    head = {
        "subject": subject,
        "evaluated": request.name,
        "dataset": dataset_name,
        "dataset_fingerprint": dataset_key,
        "identity": model.identity.as_dict(),
    }
    kept = Measurements(path, head)
    probing = Probing(workspace, request, model, dataset, voc, embedding, say)
    cached, seeds = True, {}
    voc_sha256 = None if voc is None else voc.digests()
    for protocol in _protocols(settings):
        data = {"voc": voc_sha256} if protocol.data == "voc" else {"embed": EMBED_VERSION}
        key = fingerprint(
            {
                "stage": "evaluate",
                "version": STAGE_VERSION,
                "subject": subject,
                "protocol": {"name": protocol.name, **asdict(protocol)},
                **data,
            }
        )
        seeds[protocol.name] = tuple(range(settings.seeds)) if protocol.is_random else (FIRST_SEED,)
        for seed in seeds[protocol.name]:
            if not kept.has(protocol.name, key, seed):
                cached = False
                start = time.perf_counter()
                figures = probing.measure(protocol, seed)
                seconds = round(time.perf_counter() - start, 4)
                record = {"how": protocol.describe(figures), "settings": asdict(protocol)}
                kept.add(protocol.name, key, seed, record, {**figures, "seconds": seconds})
    chance = None if dataset is None else chance_of(dataset)
    return Evaluation(path, kept.chosen(seeds), cached, chance=chance)


def _protocols(settings: EvaluateSettings) -> list[Protocol]:
    """The requested protocols, each once, with the number of classes from the settings."""
    chosen = [PROTOCOLS[name] for name in dict.fromkeys(settings.protocol)]
    classes: dict[str, Any] = {"num_classes": settings.voc_classes}
    return [replace(p, **classes) if p.data == "voc" else p for p in chosen]


def open_voc_of(settings: EvaluateSettings) -> VocFolder | None:
    """The folder --voc if a protocol needs it; raises ChoiceError if only one of the two is given."""
    on_voc = [name for name, protocol in PROTOCOLS.items() if protocol.data == "voc"]
    asked = [name for name in settings.protocol if name in on_voc]
    if settings.voc is None:
        if not asked:
            return None
        raise ChoiceError(
            f"--protocol {asked[0]} requires --voc PATH: a folder in the layout of Pascal VOC 2012, with "
            "JPEGImages, SegmentationClass and ImageSets/Segmentation"
        )
    if not asked:
        names = " or ".join(on_voc)
        raise ChoiceError(f"--voc is used only by {names}; add --protocol {names}")
    return open_voc(Path(settings.voc))
