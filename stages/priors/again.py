"""A prior known by its representations → the request, and the command, that embed with it again."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from rela.models.preprocessing import preprocessing_for
from rela.priors import POOLED, PriorIdentity, PriorRequest
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.priors.checkpoint_file import display_name
from rela.priors.names import from_displayed_name
from rela.priors.prior import Combination
from rela.stages.priors.identify import recorded_weights
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace

_TORCHSCRIPT = "torchscript"
_USUAL_SIZE = 224  # pixels, of published models; naming another one's size does no harm
Known = tuple[PriorIdentity, str | None]  # with the name of the run that it is, if any


def priors_of(representations: Representations) -> list[Known]:
    """The prior that made them, or the components of a combination."""
    made, content = representations.prior, representations.content
    if isinstance(made, Combination):
        runs = [component.run for component in content.components]
        return list(zip(made.components, runs, strict=True))
    return [(made, content.run)]


def request_again(workspace: Workspace, known: Known) -> PriorRequest:
    """The request for a known prior; its weights may be gone by now."""
    identity, run = known
    request = PriorRequest(
        identity.name.removesuffix(f"@{identity.layer}"),
        image_size=identity.image_size,
        resizes=run is None,
        layer=identity.layer,
    )
    if run is not None:
        return replace(request, name=f"run:{run}")
    path = recorded_weights(workspace, identity)
    if path is not None and request.name.endswith(f"@{path.stem}"):
        return replace(request, name=request.name.removesuffix(f"@{path.stem}"), weights=path)
    if path is not None and request.name == display_name(path):
        arch = None if identity.arch == _TORCHSCRIPT else identity.arch
        return replace(request, name=f"{FILE_PREFIX}{path}", arch=arch)
    return from_displayed_name(request)


def embed_command(
    workspace: Workspace,
    dataset: DataSet,
    several: Sequence[Known],
    settings: EmbedSettings,
    split: str = "train",
) -> str:
    """`rela embed …` for a prior, or for several that are combined."""
    words = ["rela", "embed", dataset.name]
    for known in several:
        words += ["--prior", request_again(workspace, known).name]
    identity, request = several[0][0], request_again(workspace, several[0])
    if request.weights is not None:
        words += ["--weights", str(request.weights)]
    if request.arch is not None:
        words += ["--arch", request.arch]
    if request.seed:
        words += ["--seed", str(request.seed)]
    size = identity.image_size
    has_published = identity.preprocessing != preprocessing_for(size)
    usual = _USUAL_SIZE if has_published else dataset.default_image_size
    if several[0][1] is None and size != usual:
        words += ["--image-size", str(size)]
    if request.layer != POOLED:
        words += ["--layer", request.layer]
    if identity.arch == _TORCHSCRIPT:
        words += ["--trust-code"]
    if settings.crops:
        words += ["--crops", str(settings.crops)]
    if settings.dtype != EmbedSettings.dtype:
        words += ["--dtype", settings.dtype]
    return shlex.join([*words, *(["--split", split] if split != "train" else [])])
