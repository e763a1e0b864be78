"""Priors: public models, checkpoints, earlier runs or random networks that turn images into targets.

In: a `PriorRequest`. Out: a `Prior`, a network with its identity. Begin with `prior.py`.

A kind of prior is one module with a `resolve(request) -> Prior`, and one line in `_SOURCES`. Nothing here
imports torch until a prior has to be built.
"""

from importlib import import_module

from rela.errors import ChoiceError
from rela.priors.names import refuse_what_is_no_name
from rela.priors.prior import POOLED, Prior, PriorIdentity, PriorRequest, at_layer

__all__ = ["POOLED", "Prior", "PriorIdentity", "PriorRequest", "at_layer", "resolve"]

_SOURCES = {  # by what stands before the first colon of a name
    "": "torchvision",
    "timm": "timm",
    "clip": "clip",
    "file": "checkpoint_file",
    "random": "untrained",
}


def resolve(request: PriorRequest) -> Prior:
    """Find and build the prior that `request` names, at the layer that it names."""
    refuse_what_is_no_name(request.name)
    prefix = request.name.partition(":")[0] if ":" in request.name else ""
    if prefix not in _SOURCES:
        prefixes = ", ".join(f"{known}:" for known in _SOURCES if known)
        raise ChoiceError(
            f"no priors called {prefix}:...; there are torchvision's names, {prefixes} and run:"
        )
    if request.arch is not None and prefix != "file":
        raise ChoiceError(f"--arch {request.arch} says what is in a file:PATH, not {request.name}")
    prior: Prior = import_module(f"rela.priors.{_SOURCES[prefix]}").resolve(request)
    return at_layer(prior, request.layer)
