"""Names of priors: rejecting what cannot be one, and reading those that tables show."""

import re
from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError, one_line
from rela.priors import KINDS, prefix_of
from rela.priors.prior import POOLED, PriorRequest
from rela.priors.untrained import EXAMPLE as UNTRAINED_EXAMPLE
from rela.priors.untrained import PREFIX as UNTRAINED_PREFIX

_BASELINES = ("none", "random")
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors")
_SEEDED = re.compile(rf"({UNTRAINED_PREFIX}.+)-seed(\d{{1,18}})")


def check_name(name: str) -> None:
    """Raise ChoiceError, with the name to give, for the baselines of training, lists and paths."""
    prefix = prefix_of(name)
    if name == prefix and prefix in KINDS:
        raise ChoiceError(
            f"--prior {name or repr('')} is incomplete; expected a name, such as {KINDS[prefix].EXAMPLE}"
        )
    if name in _BASELINES:
        raise ChoiceError(
            f"--prior {name} is for `rela train`; here an untrained network is random:ARCH, such as "
            f"{UNTRAINED_EXAMPLE}"
        )
    shown = one_line(name)
    if "," not in literal_characters(name) and re.search(r"[,\s]", name):
        each = " ".join(f"--prior {part}" for part in re.split(r"[,\s]+", shown) if part)
        raise ChoiceError(f"--prior '{shown}' is not a name; give several priors as {each}")
    path = Path(name)
    if not prefix and (path.is_dir() or path.suffix in _WEIGHTS):
        right = f"file:{shown} --arch ARCH" if path.suffix else path.name
        raise ChoiceError(
            f"--prior {shown} is a path; a file with weights is given as file:PATH with --arch ARCH, a run "
            f"by its name: --prior {right}"
        )


def from_displayed_name(request: PriorRequest) -> PriorRequest:
    """The same request with the layer and the seed that its name contains, if any."""
    if request.weights is None and "@" not in literal_characters(request.name):
        bare, _, layer = request.name.partition("@")
        if bare and layer and request.layer == POOLED:
            request = replace(request, name=bare, layer=layer)
    seeded = _SEEDED.fullmatch(request.name)
    if seeded is not None and request.seed == 0:
        request = replace(request, name=seeded[1], seed=int(seeded[2]))
    return request


def literal_characters(name: str) -> str:
    """Which of `@`, `+` and `,` have no general meaning in `name`, see `PriorKind`."""
    prefix = prefix_of(name)
    return KINDS[prefix].LITERAL if prefix in KINDS else ""
