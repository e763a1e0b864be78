"""What a prior may be called, what was probably meant, and how tables show it."""

import re
from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError, one_line
from rela.priors.prior import POOLED, PriorRequest

_EXAMPLES = {
    "": "resnet18",
    "timm": "timm:resnet18.a1_in1k",
    "clip": "clip:ViT-B-16",
    "file": "file:weights.pth",
    "random": "random:resnet18",
}
_BASELINES = ("none", "random")
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors")


def refuse_what_is_no_name(name: str) -> None:
    """Raise ChoiceError, with the name to give, for the baselines of training, lists and paths."""
    prefix, colon, bare = name.partition(":")
    if not colon:
        prefix, bare = "", name
    if not bare and prefix in _EXAMPLES:
        raise ChoiceError(
            f"--prior {name or repr('')} names nothing; expected a name, such as {_EXAMPLES[prefix]}"
        )
    if name in _BASELINES:
        raise ChoiceError(
            f"--prior {name} is for `rela train`; here an untrained network is random:ARCH, such as "
            f"{_EXAMPLES['random']}"
        )
    if prefix == "file":
        return
    shown = one_line(name)
    if re.search(r"[,\s]", name):
        each = " ".join(f"--prior {part}" for part in re.split(r"[,\s]+", shown) if part)
        raise ChoiceError(f"--prior '{shown}' is no name; several priors are given so: {each}")
    if not colon and (Path(name).is_dir() or Path(name).suffix in _WEIGHTS):
        what = (
            f"--prior file:{shown} --arch ARCH"
            if Path(name).suffix
            else f"--prior {Path(name).name}"
        )
        raise ChoiceError(
            f"--prior {shown} is a path; a file with weights is given as file:PATH with --arch ARCH, a run "
            f"by its name: {what}"
        )


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
