"""Checkpoints of other training libraries → the weights of a backbone.

Lightning, solo-learn, lightly, DINO, MoCo, VISSL and others put the same backbone into different
containers ("state_dict", "teacher", ...) under different prefixes ("backbone.", "module.encoder_q.",
...), beside projectors, classifiers and momentum copies. The library does not have to be known: every
container is searched for a prefix under which there is a complete backbone.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rela.errors import DataError
from rela.models.weights import is_plain, load_strict, read_checkpoint

_DEEPEST = 5  # VISSL's classy_state_dict / base_model / model / trunk, and one more
_SHOWN = 8
# Modules that training adds beside a backbone, by the first part of their names.
_HEAD = re.compile(
    r"(\w+_)?(fc|heads?|classifiers?|linear|mlp|projectors?|projections?|projection_mlp|predictors?|"
    r"prediction_mlp|prototypes)|(decoder|queue|aux)\w*|mask_token|masked_embed",
    re.IGNORECASE,
)
# Of several copies: DINO evaluates its teacher, all others the online network.
_PREFERRED = re.compile(r"teacher|(^|[._/])ema([._/]|$)")
_LAST_CHOICE = re.compile(r"momentum|student|target|encoder_k|key_encoder")
_DIALECTS = (  # by container/prefix
    (r"/method\.backbone\.$", "rela"),
    (r"_feature_blocks\.$", "VISSL"),
    (r"encoder_q\.$|base_encoder\.$", "MoCo"),
    (r"teacher|student", "DINO"),
    (r"/visual\.$", "CLIP"),
)


@dataclass(frozen=True)
class _Found:
    """Tensors under one prefix of one container; `names` maps their names to the backbone's."""

    path: tuple[str, ...]
    container: dict[str, Tensor]
    prefix: str
    names: dict[str, str]

    @property
    def place(self) -> str:
        return f"{'.'.join(self.path)}/{self.prefix}"

    def rank(self) -> int:
        return 0 if _PREFERRED.search(self.place) else 2 if _LAST_CHOICE.search(self.place) else 1

    def state(self) -> dict[str, Tensor]:
        """The tensors by the backbone's names."""
        return {
            name: self.container[self.prefix + there]
            for there, name in self.names.items()
            if self.prefix + there in self.container
        }

    def others(self) -> list[str]:
        """All other names in the container."""
        used = {self.prefix + there for there in self.names}
        return [key for key in self.container if key not in used]


def load_backbone_weights(
    backbone: nn.Module,
    path: Path,
    classifier_keys: list[str],
    trust_code: bool = False,
    rename: Callable[[str], str] = lambda key: key,
) -> str:
    """Load the whole backbone from a checkpoint; returns a description of what was found.

    `rename` turns old key names into current ones. Raises DataError naming keys if the backbone is
    incomplete or has additional layers; and as `rela.models.weights.read_checkpoint`.
    """
    checkpoint = read_checkpoint(path, trust_code)
    containers = [
        (place, {rename(key): value for key, value in tensors.items()})
        for place, tensors in _containers(checkpoint)
    ]
    if not containers:
        raise DataError(
            f"{path} holds {type(checkpoint).__name__} without named tensors, expected a state dict"
        )
    found = _choose(_find(containers, backbone), backbone, path)
    unexpected = {
        key: found.container[key]
        for key in found.others()
        if key.startswith(found.prefix)
        and not _is_head(key.removeprefix(found.prefix), backbone, classifier_keys)
    }
    load_strict(backbone, {**found.state(), **unexpected}, [], str(path))
    return _describe(checkpoint, found)


def _containers(
    value: Any, path: tuple[str, ...] = (), seen: set[int] | None = None
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(keys that lead to it, its tensors) of every dictionary with named tensors, each one once."""
    seen = set() if seen is None else seen
    if not isinstance(value, dict) or len(path) > _DEEPEST or id(value) in seen:
        return
    seen.add(id(value))
    tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield path, tensors
    for key, inner in value.items():
        if isinstance(key, str):
            yield from _containers(inner, (*path, key), seen)


def _find(
    containers: list[tuple[tuple[str, ...], dict[str, Tensor]]], backbone: nn.Module
) -> list[_Found]:
    """Every prefix of every container with tensors of the backbone, the most complete first."""
    found: list[tuple[int, _Found]] = []
    for names in _namings(backbone):
        for path, container in containers:
            counts = Counter(
                key[: -len(there)] for key in container for there in _endings(key) if there in names
            )
            for prefix, count in counts.items():
                found.append((count, _Found(path, container, prefix, names)))
    found.sort(key=lambda pair: -pair[0])
    return [candidate for _, candidate in found]


def _namings(backbone: nn.Module) -> Iterator[dict[str, str]]:
    """Names in a file → names of the backbone: its own, and those of `nn.Sequential(*children())`."""
    wanted = list(backbone.state_dict())
    yield {name: name for name in wanted}
    numbers = {name: str(i) for i, (name, _) in enumerate(backbone.named_children())}
    parts = [name.partition(".") for name in wanted]
    if all(child in numbers for child, _, _ in parts):
        yield {f"{numbers[child]}.{rest}": f"{child}.{rest}" for child, _, rest in parts}


def _endings(key: str) -> Iterator[str]:
    """ "a.b.c" → "a.b.c", "b.c", "c"."""
    while key:
        yield key
        key = key.partition(".")[2]


def _choose(candidates: list[_Found], backbone: nn.Module, path: Path) -> _Found:
    """The preferred one of the complete candidates, or the most complete one."""
    shapes = {k: v.shape for k, v in backbone.state_dict().items()}
    needed = {k for k in shapes if not k.endswith("num_batches_tracked")}

    def is_complete(candidate: _Found) -> bool:
        state = candidate.state()
        fits = all(v.shape == shapes[k] and is_plain(v) for k, v in state.items())
        return fits and needed <= state.keys()

    complete = sorted((c for c in candidates if is_complete(c)), key=_Found.rank)
    if not complete:
        if candidates:
            return candidates[0]
        raise DataError(
            f"{path} holds no tensor that the architecture has (it has {', '.join(list(shapes)[:2])}"
            ", ...); name the architecture that these weights belong to"
        )
    best = [c for c in complete if c.rank() == complete[0].rank()]
    state = best[0].state()
    for other in best[1:]:
        if any(not torch.equal(state[key], value) for key, value in other.state().items()):
            places = ", ".join(repr(c.place.strip("/")) for c in best)
            raise DataError(
                f"{path} holds {len(best)} different backbones, at {places}; save the one you mean "
                "as a state dict (torch.save(model.state_dict(), ...))"
            )
    return best[0]


def _is_head(key: str, backbone: nn.Module, classifier_keys: list[str]) -> bool:
    """Whether a name under the backbone's prefix belongs to a head, not to a layer inside."""
    classifiers = {classifier.rpartition(".")[0] for classifier in classifier_keys}
    if any(key == module or key.startswith(f"{module}.") for module in classifiers):
        return True
    first = key.partition(".")[0]
    own = {name.partition(".")[0] for name in backbone.state_dict()}
    return first not in own and _HEAD.fullmatch(first) is not None


def _describe(checkpoint: Any, found: _Found) -> str:
    under = f" under {found.prefix!r}" if found.prefix else ""
    inside = f" of {'.'.join(found.path)!r}" if found.path else ""
    text = f"weights: {_dialect(checkpoint, found)}, {len(found.state())} tensors{under}{inside}"
    roots = list(dict.fromkeys(_root(key, found.prefix) for key in found.others()))
    if roots:
        more = f" and {len(roots) - _SHOWN} more" if len(roots) > _SHOWN else ""
        text += f", left out: {', '.join(roots[:_SHOWN])}{more}"
    return text


def _dialect(checkpoint: Any, found: _Found) -> str:
    for pattern, name in _DIALECTS:
        if re.search(pattern, found.place):
            return f"{name} checkpoint"
    if found.prefix in ("backbone.", "encoder.") and any(
        key.startswith(("classifier.", "projector.", "momentum_")) for key in found.container
    ):
        return "solo-learn checkpoint"
    if "pytorch-lightning_version" in checkpoint:
        return "Lightning checkpoint"
    return "checkpoint" if found.path or found.prefix else "state dict"


def _root(key: str, prefix: str) -> str:
    """The beginning of an unused name up to where it differs from `prefix`: "module.queue", "head.*"."""
    parts, depth = key.split("."), 1
    while depth < len(parts) and prefix.startswith(".".join(parts[:depth]) + "."):
        depth += 1
    return ".".join(parts[:depth]) + (".*" if depth < len(parts) else "")
