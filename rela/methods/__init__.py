"""Self-supervised algorithms, one file each, with loss, heads, views and hyperparameters.

In: a backbone and views. Out: a loss. Begin with `method.py`, then `byol.py`.

A new algorithm is one file with a subclass of `Method`, and one line here.
"""

import importlib
from typing import TYPE_CHECKING

from rela.errors import ChoiceError

if TYPE_CHECKING:  # the command line lists METHODS without importing torch
    from rela.methods.method import Method

METHODS = {  # file and class by the name for --method
    "byol": ("byol", "BYOL"),
    "dino": ("dino", "DINO"),
    "simclr": ("simclr", "SimCLR"),
    "mocov2": ("mocov2", "MoCoV2"),
    "mocov3": ("mocov3", "MoCoV3"),
    "simsiam": ("simsiam", "SimSiam"),
    "barlowtwins": ("barlowtwins", "BarlowTwins"),
    "vicreg": ("vicreg", "VICReg"),
    "swav": ("swav", "SwAV"),
    "supervised": ("supervised", "Supervised"),
    "none": ("stage1_only", "Stage1Only"),
}


def method_class(name: str) -> "type[Method]":
    """The algorithm called `name`; raises ChoiceError listing all names."""
    if name not in METHODS:
        raise ChoiceError(f"no method {name!r}; expected one of {', '.join(METHODS)}")
    file, class_name = METHODS[name]
    found: type[Method] = getattr(importlib.import_module(f"rela.methods.{file}"), class_name)
    return found
