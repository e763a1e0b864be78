"""The cached representations of a training: by name, by identity, or the only ones."""

from collections.abc import Callable

from rela.errors import ChoiceError, UnavailableError
from rela.priors import POOLED, PriorRequest
from rela.priors.names import is_called, shown_names
from rela.priors.prior import JOINT
from rela.stages.embed.combine import embed_all
from rela.stages.priors.find import (
    embedded_in_words,
    matching_representations,
    refuse_maps,
    require_one,
)
from rela.stages.priors.identify import UnusedPriorError, refuse_unknown
from rela.stages.priors.layer import refuse_layer_of_none, refuse_missing_layer
from rela.stages.priors.records import priors_of
from rela.stages.priors.requests import prior_request, requests_of
from rela.stages.priors.suggested import suggested_embedding
from rela.stages.settings import EmbedSettings, PriorSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

NO_PRIOR, RANDOM_PRIOR = "none", "random"


def chosen_representations(
    workspace: Workspace,
    dataset: DataSet,
    settings: TrainSettings,
    embed_first: bool,
    say: Callable[[str], None],
    may_build: bool = True,
) -> Representations | None:
    """The cached representations selected by the settings; None for training without a prior.

    Without `may_build`, missing ones are not embedded but raise ChoiceError.
    """
    if settings.prior == NO_PRIOR:
        return None
    among = (settings.prior or "").split(JOINT)
    if len(among) > 1 and (alone := {NO_PRIOR, RANDOM_PRIOR}.intersection(among)):
        raise ChoiceError(f"--prior {min(alone)} stands alone; leave out the other priors")
    images = dataset.images_sha256()
    cached = workspace.representations(images)
    with_crops, and_crops = "", ""
    if settings.crops is not None:
        with_crops, and_crops = f" with {settings.crops} crops", f" --crops {settings.crops}"
        cached = [a for a in cached if a.content.crops == settings.crops]
    if settings.layer is not None:
        with_crops += f" at layer {settings.layer}"
        and_crops += f" --layer {settings.layer}"
        layers = sorted({layer for a in cached for layer in _layers_of(a)})
        archs = [identity.arch for a in cached for identity, _ in priors_of(a)]
        cached = [a for a in cached if _layers_of(a) == {settings.layer}]
        if layers and not cached:
            with_crops += f" (but at {', '.join(layers)})"
            if settings.prior is None:
                refuse_layer_of_none(archs, settings.layer)
    if settings.prior is None:
        # representations by a run trained on these images are for evaluation, not targets
        own = {run.name for run in workspace.runs() if run.images_sha256 == images}
        cached = [a for a in cached if a.content.run not in own]
        if not cached:
            others = _of_val(workspace, dataset)
            command = suggested_embedding(dataset, crops=settings.crops or 0)
            command += "" if settings.layer is None else f" --layer {settings.layer}"
            raise ChoiceError(
                f"no prior has been embedded for the training images of data set {dataset.name}"
                f"{with_crops}{others}; run `{command}` first, or train without one: --prior none"
            )
        return require_one(cached, f"priors are embedded for data set {dataset.name}", " (or none)")
    refuse_maps(workspace, dataset, settings.prior)
    requests = training_requests(workspace, dataset, settings)
    # a random prior requires neither a choice nor a download
    builds = may_build and (embed_first or settings.prior == RANDOM_PRIOR)
    matching = []
    try:
        called = f"{settings.prior}@{settings.layer}"  # as tables do
        if settings.layer is None or not any(is_called(a.prior, called) for a in cached):
            called = settings.prior
        matching = matching_representations(workspace, requests, called, cached, builds)
    except UnusedPriorError:
        if not may_build:
            raise
        for request in requests:
            refuse_unknown(workspace, request)
    if matching:
        return require_one(matching, f"representations by prior {settings.prior} exist")
    names = [request.name for request in requests]
    if builds:
        say(f"embedding data set {dataset.name} with prior {' and '.join(names)}")
        how = EmbedSettings(crops=settings.crops or 0)
        made = embed_all(workspace, dataset, requests, how, say=say).artifact
        if made is None:  # never train without a prior that was asked for
            raise UnavailableError(
                f"prior {settings.prior} is being embedded by other processes; try again"
            )
        return made
    for request in requests:
        refuse_missing_layer(workspace, request)
    raise ChoiceError(
        f"prior {settings.prior} has not been embedded for data set {dataset.name}{with_crops}"
        f"{embedded_in_words(cached)}; run "
        f"`rela embed {dataset.name} --prior {' --prior '.join(names)}{and_crops}` first, or add --embed"
    )


def _layers_of(representations: Representations) -> set[str]:
    """The layer of the prior, or of every component of a combination."""
    return {identity.layer for identity, _ in priors_of(representations)}


def _of_val(workspace: Workspace, dataset: DataSet) -> str:
    """What was embedded of the validation images only."""
    made = (
        workspace.representations(dataset.images_sha256("val")) if "val" in dataset.splits else []
    )
    names = ", ".join(dict.fromkeys(shown_names(each.prior for each in made)))
    return f", only {names} for those of val" if names else ""


def training_requests(
    workspace: Workspace, dataset: DataSet, settings: TrainSettings
) -> list[PriorRequest]:
    """The requests to embed; `random` is the untrained model itself, the same for all seeds of a run."""
    assert settings.prior is not None
    if settings.prior == RANDOM_PRIOR:
        arch = f"random:{settings.model}"
        return [prior_request(dataset, arch, PriorSettings(image_size=settings.image_size))]
    described = PriorSettings(layer=settings.layer or POOLED)
    return requests_of(workspace, dataset, settings.prior, described)
