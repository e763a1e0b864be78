"""Names of priors: rejecting what cannot be one, and those that tables show.

A table adds `@112px` (the input size) or `#1a2b3c4d` (a digest of the whole identity) to a name that two
different priors have, such as those of two files best.pth.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError, one_line
from rela.pipeline.fingerprint import fingerprint
from rela.priors import KINDS, prefix_of
from rela.priors.prior import JOINT, POOLED, Combination, PriorIdentity, PriorRequest
from rela.priors.untrained import EXAMPLE as UNTRAINED_EXAMPLE
from rela.priors.untrained import PREFIX as UNTRAINED_PREFIX

_BASELINES = ("none", "random")
WEIGHTS_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
_SIZED = re.compile(r"(?!file:)(.+)@([1-9]\d{0,4})px")
_ADDED = re.compile(r"@[1-9]\d*px(\+|$)|#[0-9a-f]{8}(\+|$)")
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
    if f"{name}:" in KINDS:
        raise ChoiceError(
            f"--prior {name} is a kind of prior; expected a name, such as {KINDS[f'{name}:'].EXAMPLE}"
        )
    shown = one_line(name)
    if "," not in literal_characters(name) and re.search(r"[,\s]", name):
        each = " ".join(f"--prior {part}" for part in re.split(r"[,\s]+", shown) if part)
        raise ChoiceError(f"--prior '{shown}' is not a name; give several priors as {each}")
    path = Path(name)
    if not prefix and (path.is_dir() or path.suffix in WEIGHTS_SUFFIXES):
        right = f"file:{shown} --arch ARCH" if path.suffix else path.name
        raise ChoiceError(
            f"--prior {shown} is a path; a file with weights is given as file:PATH with --arch ARCH, a run "
            f"by its name: --prior {right}"
        )


def no_such_name(name: str) -> str:
    """What to say of a name that no kind knows: the names of any kind that were probably meant."""
    from rela.models.similar_names import similar_names

    shown, prefix = one_line(name), prefix_of(name)
    known = [every for kind in KINDS.values() for every in kind.names()]
    close = similar_names(name.removeprefix(prefix), known)
    meant = f"did you mean {', '.join(close or ['resnet18', 'resnet50', 'vit_b_16'])}?"
    if not prefix:
        return f"no model {shown!r}; {meant}"
    prefixes = ", ".join(prefix for prefix, kind in KINDS.items() if prefix and kind.METAVAR)
    return f"unknown prefix {one_line(prefix)}; expected a torchvision name, {prefixes} or run:; {meant}"


def is_called(prior: PriorIdentity | Combination, name: str) -> bool:
    """Whether a table may show the prior, or the combination, by this name."""
    if isinstance(prior, PriorIdentity):
        return name in _names_of(prior)
    rests = {name}
    for i, component in enumerate(prior.components):
        joint = JOINT if i else ""
        rests = {
            rest.removeprefix(joint + own)
            for rest in rests
            for own in _names_of(component)
            if rest.startswith(joint + own)
        }
    return "" in rests


def tells_more(name: str) -> bool:
    """Whether a table added something to the name."""
    return _ADDED.search(name) is not None


def shown_names(priors: Iterable[PriorIdentity | Combination]) -> list[str]:
    """Their names, with as much added as tells different priors of one name from each other."""
    priors = list(priors)
    every = [c for p in priors for c in (p.components if isinstance(p, Combination) else (p,))]
    alike: dict[str, dict[str, PriorIdentity]] = {}
    for identity in every:
        alike.setdefault(bare_name(identity), {})[_digest(identity)] = identity
    shown: dict[tuple[str, str], str] = {}
    for bare, several in alike.items():
        forms = zip(*map(_names_of, several.values()), strict=True)
        names = next(form for form in forms if len(set(form)) == len(several))
        if len(several) == 1:
            names = tuple(identity.name for identity in several.values())
        shown |= {(bare, digest): form for digest, form in zip(several, names, strict=True)}

    def of(prior: PriorIdentity | Combination) -> str:
        if isinstance(prior, Combination):
            return JOINT.join(map(of, prior.components))
        return shown[bare_name(prior), _digest(prior)]

    return [of(prior) for prior in priors]


def _names_of(identity: PriorIdentity) -> Sequence[str]:
    """What it may be called, the shortest first; only the last is its own."""
    name = bare_name(identity)
    return name, at_size(name, identity.image_size), f"{name}#{_digest(identity)}"


def bare_name(identity: PriorIdentity) -> str:
    """Its name without its input size."""
    return identity.name.removesuffix(at_size("", identity.image_size))


def at_size(name: str, image_size: int) -> str:
    """`resnet18@112px`: the name of the same at another input size in pixels than its usual one."""
    return f"{name}@{image_size}px"


def _digest(identity: PriorIdentity) -> str:
    return fingerprint(identity.key())[:8]


def from_displayed_name(request: PriorRequest) -> PriorRequest:
    """The same request with the input size, the layer and the seed that its name contains, if any."""
    sized = _SIZED.fullmatch(request.name)
    if sized is not None and request.weights is None and not request.resizes:
        request = replace(request, name=sized[1], image_size=int(sized[2]), resizes=True)
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
