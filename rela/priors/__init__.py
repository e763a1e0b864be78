"""Priors: public models, earlier runs, or random networks that turn images into targets.

A source is one module with a `resolve(request) -> Prior`, and one line in `resolve` below. Nothing
here imports torch until a prior has to be built.
"""

from rela.priors.prior import Prior, PriorIdentity, PriorRequest

__all__ = ["Prior", "PriorIdentity", "PriorRequest", "resolve"]


def resolve(request: PriorRequest) -> Prior:
    """Find and build the prior that `request` names."""
    if request.name.startswith("random:"):
        from rela.priors import random_prior

        return random_prior.resolve(request)
    from rela.priors import torchvision_prior

    return torchvision_prior.resolve(request)
