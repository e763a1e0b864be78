"""Evaluation of runs and priors on data sets, by the protocols of rela.evaluation."""

from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError
from rela.evaluation.protocols import PROTOCOLS
from rela.evaluation.voc import VocFolder, open_voc
from rela.options import check_options, flag_name, part_of
from rela.pipeline import Say
from rela.priors import PriorRequest
from rela.stages.embed.embed import embed
from rela.stages.evaluate.measured import Evaluation, chosen_protocols, measured
from rela.stages.evaluate.of_prior import prior_of
from rela.stages.evaluate.probing import Probing, mapped
from rela.stages.evaluate.speed import speed_of_run
from rela.stages.priors.identify import identify
from rela.stages.priors.requests import names_of, prior_request
from rela.stages.requests import Evaluate, repeats_the_command
from rela.stages.settings import EmbedSettings, EvaluateSettings, PriorSettings
from rela.stages.train.snapshot import run_or_snapshot
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.evaluations import EVALUATION_FILE
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace


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
        dataset = workspace.dataset_for(run, dataset_name)
        if dataset.fingerprint != own_key:
            path = run.path / f"eval-{dataset.name}.json"
    name, key = (own_name, own_key) if dataset is None else (dataset.name, dataset.fingerprint)
    request = PriorRequest(f"run:{run.name}")
    found = _evaluate(workspace, dataset, (name, key), request, path, settings, embedding, say)
    parameters, prior = run.manifest.parameters, run.content.prior
    if run.content.snapshot_of is not None:
        parameters = {**parameters, "steps_done": run.content.num_steps}
    return replace(found, run=run.name, parameters=parameters, prior_name=prior)


@repeats_the_command("eval")
def evaluate(workspace: Workspace, request: Evaluate, say: Say = print) -> list[Evaluation]:
    """Evaluate the named runs, the only run or `all` runs with their priors, or a prior by itself."""
    described, settings = part_of(request, PriorSettings), part_of(request, EvaluateSettings)
    embedding = part_of(request, EmbedSettings)
    if request.prior is None:
        plain = PriorSettings()
        given = [n for n in vars(described) if getattr(described, n) != getattr(plain, n)]
        if given:
            raise ChoiceError(
                f"{', '.join(map(flag_name, given))} without --prior; add it, or leave them out"
            )
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
    dataset = workspace.dataset(request.dataset, "--dataset") if wanted else None
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
        chosen = workspace.runs(with_snapshots=False) or [workspace.run()]
    else:
        names: list[str | None] = [*dict.fromkeys(request.names)] or [None]
        chosen = [run_or_snapshot(workspace, name, say) for name in names]
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
    return with_priors(workspace, found, settings, embedding, say)


def with_priors(
    workspace: Workspace,
    evaluations: list[Evaluation],
    settings: EvaluateSettings,
    embedding: EmbedSettings,
    say: Say,
) -> list[Evaluation]:
    """Evaluations of runs with those of their priors, each measured once."""
    known: dict[tuple[str | None, str], Evaluation | str | None] = {}
    completed = []
    for one in evaluations:
        run, name = workspace.run(one.run), one.results["dataset"]
        key = run.settings.prior, name
        if key not in known:
            dataset = workspace.dataset(name, "--dataset") if needs_dataset(settings) else None
            known[key] = prior_of(workspace, run, dataset, settings, embedding, say)
        prior = known[key]
        if isinstance(prior, str):
            one = replace(one, without_prior=prior)
        if isinstance(prior, Evaluation):
            speed = speed_of_run(workspace, run, embedding.device)
            one = replace(one, prior=prior, speed=speed)
        completed.append(one)
    return completed


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

    def represent(split: str) -> Representations:
        assert dataset is not None
        made = embed(workspace, dataset, request, embedding, split, say=say).artifact
        assert made is not None, "evaluations are never sharded"
        return made

    probing = Probing(
        workspace, dataset, lambda split: mapped(represent(split)), embedding, model, voc
    )
    protocols, name = chosen_protocols(settings), request.name
    return measured(
        probing, model.identity, name, dataset_identity, protocols, settings.seeds, path
    )


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
