"""The names of priors in tables, read back: `random:resnet18-seed3`, `vit_b_16@class`."""

import re
from dataclasses import replace

from rela.priors.prior import POOLED, PriorRequest

_SEEDED = re.compile(r"(random:.+)-seed(\d{1,18})")
_WITH_OTHER_MEANINGS = ("file:", "clip:")  # of an @


def by_shown_name(request: PriorRequest) -> PriorRequest:
    """The same request with the layer and the seed that its name tells, if it does."""
    name = request.name
    if request.weights is None and not name.startswith(_WITH_OTHER_MEANINGS):
        bare, at, layer = name.partition("@")
        if at and bare and layer and request.layer == POOLED:
            request = replace(request, name=bare, layer=layer)
    seeded = _SEEDED.fullmatch(request.name)
    if seeded is not None and request.seed == 0:
        request = replace(request, name=seeded[1], seed=int(seeded[2]))
    return request
