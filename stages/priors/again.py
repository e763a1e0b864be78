"""A prior known by its representations → the request, and the command, that embed with it again."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from rela.models.preprocessing import preprocessing_for
from rela.options import option_words
from rela.priors import PriorRequest
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.priors.checkpoint_file import TORCHSCRIPT, display_name
from rela.priors.names import at_size, bare_name, from_displayed_name, shown_names
from rela.stages.priors.records import Known, recorded_request, recorded_weights
from rela.stages.settings import EmbedSettings, PriorSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace

_USUAL_SIZE = 224  # pixels, of published models; naming another one's size does no harm


def request_again(workspace: Workspace, known: Known) -> PriorRequest:
    """The request for a known prior, as it was recorded; its weights may be gone by now."""
    identity, run = known
    recorded = recorded_request(workspace, identity) if run is None else None
    if recorded is not None:
        return recorded
    request = PriorRequest(
        bare_name(identity).removesuffix(f"@{identity.layer}"),
        image_size=identity.image_size,
        resizes=run is None,
        layer=identity.layer,
    )
    if run is not None:
        return replace(request, name=f"run:{run}")
    path = recorded_weights(workspace, identity)
    for shown in () if path is None else (path.name, path.stem):  # before, without the suffix
        if request.name.endswith(f"@{shown}"):
            return replace(request, name=request.name.removesuffix(f"@{shown}"), weights=path)
    if path is not None and request.name in (name := display_name(path), Path(name).stem):
        arch = None if identity.arch == TORCHSCRIPT else identity.arch
        return replace(request, name=f"{FILE_PREFIX}{path}", arch=arch)
    return from_displayed_name(request)


def embed_commands(
    workspace: Workspace,
    dataset: DataSet,
    several: Sequence[Known],
    settings: EmbedSettings,
    split: str = "train",
) -> list[list[str]]:
    """The words of `rela embed …` for a prior, or for several that are combined.

    Options are those of all priors of a command, so where several need any, each has a command of its
    own, and the last one combines them by the names that they have then.
    """
    each = [_options(workspace, dataset, known) for known in several]
    how = ["--crops", str(settings.crops)] if settings.crops else []
    how += ["--dtype", settings.dtype] if settings.dtype != EmbedSettings.dtype else []
    is_usual = settings.precision == EmbedSettings.precision
    how += [] if is_usual else ["--precision", settings.precision]
    how += ["--split", split] if split != "train" else []
    start = ["rela", "embed", dataset.name]
    names = [["--prior", request_again(workspace, known).name] for known in several]
    if len(several) == 1 or not any(each):
        return [[*start, *chain.from_iterable(names), *each[0], *how]]
    single = [[*start, *name, *options, *how] for name, options in zip(names, each, strict=True)]
    together = []
    for called, options, (identity, _) in zip(
        shown_names(identity for identity, _ in several), each, several, strict=True
    ):
        is_sized = "--image-size" in options and called == bare_name(identity)
        together += ["--prior", at_size(called, identity.image_size) if is_sized else called]
    return [*single, [*start, *together, *how]]


def embed_command(
    workspace: Workspace,
    dataset: DataSet,
    several: Sequence[Known],
    settings: EmbedSettings,
    split: str = "train",
) -> str:
    """`embed_commands` in a line."""
    commands = embed_commands(workspace, dataset, several, settings, split)
    return " && ".join(map(shlex.join, commands))


def _options(workspace: Workspace, dataset: DataSet, known: Known) -> list[str]:
    """What identifies a prior beside its name, as options of the command line."""
    (identity, run), request = known, request_again(workspace, known)
    words = option_words(PriorSettings, vars(request), {"image_size", "trust_code"})
    size = identity.image_size
    has_published = identity.preprocessing != preprocessing_for(size)
    usual = _USUAL_SIZE if has_published else dataset.default_image_size
    is_chosen = request.resizes or not has_published
    if run is None and is_chosen and size != usual:
        words += ["--image-size", str(size)]
    return [*words, "--trust-code"] if identity.arch == TORCHSCRIPT else words
