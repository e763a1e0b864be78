"""Self-supervised algorithms. One file each, with loss, heads, views and hyperparameters.

A new one is one file with a subclass of `Method`, and one line here.
"""

import importlib
from typing import TYPE_CHECKING

from rela.errors import ChoiceError

if TYPE_CHECKING:  # the command line lists METHOD_NAMES without importing torch
    from rela.methods.method import Method

_CLASSES = {
    "byol": "BYOL",
    "dino": "DINO",
    "simclr": "SimCLR",
    "mocov2": "MoCoV2",
    "mocov3": "MoCoV3",
    "simsiam": "SimSiam",
    "barlowtwins": "BarlowTwins",
    "vicreg": "VICReg",
    "swav": "SwAV",
    "supervised": "Supervised",
    "none": "Stage1Only",
}
METHOD_NAMES = tuple(_CLASSES)


def method_class(name: str) -> "type[Method]":
    """The algorithm called `name`; raises ChoiceError listing what there is."""
    if name not in _CLASSES:
        raise ChoiceError(f"no method {name!r}; there is {', '.join(METHOD_NAMES)}")
    found: type[Method] = getattr(importlib.import_module(f"rela.methods.{name}"), _CLASSES[name])
    return found
