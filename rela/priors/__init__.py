"""Priors: public models, checkpoints, earlier runs or random networks that turn images into targets.

In: a `PriorRequest`. Out: a `Prior`, a network with its identity. Begin with `prior.py`.

A new kind of prior is one module with what `PriorKind` lists, its line in `KINDS`, and its extra in
pyproject.toml. Nothing here imports torch or numpy until a prior is built.
"""

from rela.errors import ChoiceError, MisfitError, instead, one_line
from rela.pipeline.manifest import VERSIONED_PACKAGES
from rela.priors import checkpoint_file, clip, own_network, plugin, timm, torchvision, untrained
from rela.priors.prior import (
    POOLED,
    Prior,
    PriorIdentity,
    PriorKind,
    PriorRequest,
    as_requested,
)

__all__ = ["KINDS", "POOLED", "Prior", "PriorIdentity", "PriorRequest", "as_requested", "resolve"]

_MODULES: tuple[PriorKind, ...] = (
    torchvision, timm, clip, checkpoint_file, untrained, plugin, own_network,
)  # fmt: skip
KINDS = {kind.PREFIX: kind for kind in _MODULES}


def packages() -> list[str]:
    """Distributions that models come from, in the order of `KINDS`."""
    return [package for kind in KINDS.values() for package in kind.PACKAGES.values()]


VERSIONED_PACKAGES.update(packages())


def prefix_of(name: str) -> str:
    """`clip:` of `clip:RN50`; empty for a name without a colon."""
    before, colon, _ = name.partition(":")
    return f"{before}:" if colon else ""


def check_known(name: str) -> str:
    """The prefix of a name; raises ChoiceError, with the one that was probably meant, if no kind knows it."""
    from rela.priors.names import check_name, no_such_name

    check_name(name)
    prefix = prefix_of(name)
    if prefix not in KINDS or (not prefix and name not in KINDS[""].names()):
        raise ChoiceError(no_such_name(name))
    return prefix


def resolve(request: PriorRequest) -> Prior:
    """Find and build the prior that `request` names, with the requested layer and preprocessing."""
    prefix = check_known(request.name)
    if request.arch is not None and prefix != checkpoint_file.PREFIX:
        raise ChoiceError(
            f"--arch {request.arch} applies only to file:PATH, not to {request.name}; remove it"
        )
    if request.encoder is not None and request.weights is None and prefix != checkpoint_file.PREFIX:
        raise ChoiceError(
            f"--encoder {request.encoder} applies to weights in a file, not to {request.name}; remove it"
        )
    try:
        return as_requested(KINDS[prefix].resolve(request), request)
    except MisfitError as error:
        from rela.priors.fitting import fitting_architecture

        other = None if request.weights is None else fitting_architecture(request, request.weights)
        if other is None:
            raise
        better = MisfitError(
            f"{one_line(str(request.weights))} does not fit {request.name}; it fits {other}"
        )
        file = f"{checkpoint_file.PREFIX}{request.weights}"
        raise instead(better, prior=file, arch=other, weights=None) from error
