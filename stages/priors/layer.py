"""Whether a prior has a layer: by its architecture, without its weights."""

from collections.abc import Iterable

from rela.errors import ChoiceError, RelaError
from rela.models.own_code.networks import is_own
from rela.priors import POOLED, PriorRequest, prefix_of
from rela.priors.names import from_displayed_name, is_called
from rela.priors.timm import PREFIX as TIMM_PREFIX
from rela.priors.untrained import PREFIX as UNTRAINED_PREFIX
from rela.stages.priors.records import known_identities
from rela.stages.workspace.workspace import Workspace


def refuse_missing_layer(workspace: Workspace, request: PriorRequest) -> None:
    """Raise ChoiceError, with the layers probably meant, if the prior of a request has no such layer.

    Nothing is read or downloaded, so that a prior whose architecture is not known by that passes.
    """
    known = [each for each in known_identities(workspace) if is_called(each, request.name)]
    if not known:
        request = from_displayed_name(request)
    if request.layer == POOLED:
        return
    name = request.name.removeprefix("run:")
    if workspace.has_run(name):
        archs = [workspace.run(name).model]
    elif request.arch or known:
        archs = [request.arch] if request.arch else [each.arch for each in known]
    else:
        is_plain = prefix_of(name) in ("", TIMM_PREFIX, UNTRAINED_PREFIX)
        archs = [name.removeprefix(UNTRAINED_PREFIX)] if is_plain else []
    refuse_layer_of_none(archs, request.layer)


def refuse_layer_of_none(archs: Iterable[str], layer: str) -> None:
    """Raise ChoiceError, with the layers probably meant, if none of the architectures has this layer."""
    missing: ChoiceError | None = None
    for arch in dict.fromkeys(archs):
        missing = _missing(arch, layer)
        if missing is None:
            return
    if missing is not None:
        raise missing


def _missing(arch: str, layer: str) -> ChoiceError | None:
    """The error for a layer that the architecture does not have; None if it has it, or is not known here."""
    import torch

    from rela.models.backbones import build_backbone
    from rela.models.layers import with_layers

    if is_own(arch):
        return None
    try:
        with torch.device("meta"):  # shapes only
            backbone = build_backbone(arch)
    except (RelaError, RuntimeError, ValueError, TypeError):
        return None
    try:
        with_layers(backbone, [layer])
    except ChoiceError as error:
        return error
    return None
