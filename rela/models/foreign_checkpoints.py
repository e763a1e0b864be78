"""Checkpoints of other training libraries → the weights of a backbone.

Lightning, solo-learn, lightly, DINO, MoCo, VISSL and others put the same backbone into different
containers ("state_dict", "teacher", ...) under different prefixes ("backbone.", "module.encoder_q.",
...), beside projectors, classifiers and momentum copies. The library does not have to be known: every
container is searched for a prefix under which there is a complete backbone, by its own names or by
those that `rela.models.checkpoint_names` understands.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rela.errors import DataError, MisfitError, one_line
from rela.models.checkpoint_names import (
    State,
    adapted,
    position_grid,
    without_inner_wrappers,
)
from rela.models.weights import is_plain, load_strict, read_checkpoint

_DEEPEST = 5  # VISSL's classy_state_dict / base_model / model / trunk, and one more
_SHOWN = 8  # left out
_SHOWN_KEYS = 4
# Modules that training adds beside a backbone, by the first part of their names.
_HEAD = re.compile(
    r"(\w+_)?(fc|heads?|classifiers?|linear|mlp|projectors?|projections?|projection_mlp|predictors?|"
    r"prediction_mlp|prototypes)|(decoder|queue|aux)\w*|mask_token|masked_embed|n_averaged",
    re.IGNORECASE,
)
# Of several copies: DINO evaluates its teacher, I-JEPA its target encoder, averages of weights are better
# than the weights, all others evaluate the online network.
_PREFERRED = re.compile(
    r"teacher|(^|[._/])(ema|swa)([._/]|$)|averaged|(^|[.])target_encoder/", re.IGNORECASE
)
_LAST_CHOICE = re.compile(r"momentum|student|target|encoder_k|key_encoder")
_INTERPOLATED = re.compile(r"pos_embed|positional_embedding|position_bias_table|patch_embed")
_DIALECTS = (  # by container/prefix
    (r"/method\.backbone\.$", "rela"),
    (r"_feature_blocks\.$", "VISSL"),
    (r"encoder_q\.$|base_encoder\.$", "MoCo"),
    (r"target_encoder/", "I-JEPA"),
    (r"teacher|student", "DINO"),
    (r"/visual\.$", "CLIP"),
)


@dataclass(frozen=True, eq=False)
class Encoder:
    """One network of a checkpoint: the tensors under a prefix of a container.

    - `own`: by the names in the file, without the prefix; `state`: by the backbone's names, heads too;
    - `fitting`, `unexpected`: names in `state` that the backbone has in this shape, and that neither it
      nor a head has; `complete`: all that it needs are there; `others`: what was left out, or not taken,
      in the file's words.
    """

    path: tuple[str, ...]
    prefix: str
    container: State
    own: State
    state: State
    fitting: frozenset[str]
    unexpected: tuple[str, ...]
    complete: bool
    others: tuple[str, ...] = ()
    dialect: str = ""

    @property
    def place(self) -> str:
        """`container/prefix`, each with dots."""
        return f"{'.'.join(self.path)}/{self.prefix}"

    @property
    def name(self) -> str:
        """The place, as a user says it: `state_dict.module.encoder_q`."""
        return re.sub(r"[./]+", ".", self.place).strip(".")

    def is_called(self, name: str) -> bool:
        """Whether it is the whole name, or parts of it in a row."""
        return f".{name}." in f".{self.name}."

    def rank(self) -> int:
        """0 for the one to prefer among several, 2 for the last choice."""
        return 0 if _PREFERRED.search(self.place) else 2 if _LAST_CHOICE.search(self.place) else 1

    @cached_property
    def wanted(self) -> State:
        """The tensors of the backbone."""
        return {name: self.state[name] for name in self.state if name in self.fitting}

    def equals(self, other: "Encoder") -> bool:
        """Whether both give the backbone the same weights."""
        return all(
            torch.equal(v, other.state[k]) for k, v in self.wanted.items() if k in other.state
        )

    def trained_image_size(self, backbone: nn.Module, image_size: int) -> int | None:
        """The input size in pixels that the position embeddings in the file are for, if there are any.

        `backbone` is built for `image_size`.
        """
        embeds_class = not getattr(backbone, "no_embed_class", False)
        num_others = getattr(backbone, "num_prefix_tokens", 1) if embeds_class else 0
        grids = [position_grid(s, num_others) for s in (self.own, backbone.state_dict())]
        there, here = grids
        return None if there is None or here is None else image_size * there // here

    def note(self) -> str:
        """What was found, and what was left out or not taken."""
        under = f" under {self.prefix!r}" if self.prefix else ""
        inside = f" of {'.'.join(self.path)!r}" if self.path else ""
        text = f"weights: {self.dialect}, {len(self.wanted)} tensors{under}{inside}"
        left_out = []
        for key in self.container:
            name = key.removeprefix(self.prefix)
            is_own = key.startswith(self.prefix) and name in self.own
            if not is_own or (name in self.state and name not in self.fitting):
                left_out.append(_root(key, self.prefix))
        left_out += [
            _root(self.prefix + k, self.prefix) for k in self.state if k not in self.fitting
        ]
        roots = list(dict.fromkeys(left_out))
        if roots:
            text += f", left out: {_first(roots, _SHOWN)}"
        may_be = filter(_INTERPOLATED.search, self.wanted.keys() & self.own.keys())
        resized = sorted(k for k in may_be if self.own[k].shape != self.wanted[k].shape)
        if resized:
            there, here = (list(of[resized[0]].shape) for of in (self.own, self.wanted))
            text += f"; {_first(resized, 2)} interpolated from {there} to {here}"
        if self.others:
            text += f"; not taken: {_first(self.others)} (choose with --encoder)"
        return text

    def load(self, backbone: nn.Module, path: Path) -> None:
        """Load the whole backbone; raises DataError, naming keys of both, if it is not complete."""
        further = {self.prefix + name: self.state[name] for name in self.unexpected}
        known = {k: v for k, v in self.state.items() if k in backbone.state_dict()}
        load_strict(backbone, {**known, **further}, [], str(path), list(self.container))


def load_backbone_weights(
    backbone: nn.Module,
    path: Path,
    classifier_keys: list[str],
    trust_code: bool = False,
    which: str | None = None,
) -> str:
    """Load the whole backbone from a checkpoint; returns a description of what was found.

    Raises DataError naming keys if the backbone is incomplete or has additional layers; and as
    `find_encoder`.
    """
    encoder = find_encoder(backbone, path, classifier_keys, trust_code, which)
    encoder.load(backbone, path)
    return encoder.note()


def find_encoder(
    backbone: nn.Module,
    path: Path,
    classifier_keys: list[str],
    trust_code: bool = False,
    which: str | None = None,
) -> Encoder:
    """The encoder in a file that fits the backbone best; `which` names one of several.

    Raises DataError if there is none with a tensor of the backbone, or if several are as good; and as
    `rela.models.weights.read_checkpoint`.
    """
    return encoder_in(read_checkpoint(path, trust_code), path, backbone, classifier_keys, which)


def encoder_in(
    checkpoint: Any,
    path: Path,
    backbone: nn.Module,
    classifier_keys: list[str],
    which: str | None = None,
) -> Encoder:
    """As `find_encoder`, in what was read already; messages name `path`."""
    containers = [
        (place, without_inner_wrappers(tensors, backbone))
        for place, tensors in _containers(checkpoint)
    ]
    if not containers:
        raise DataError(
            f"{path} holds {type(checkpoint).__name__} without named tensors, expected a state dict"
        )
    found = [
        _read(place, container, prefix, backbone, classifier_keys)
        for place, container in containers
        for prefix in _prefixes(container, backbone)
    ]
    chosen, others = _choose(found, backbone, path, which)
    return replace(chosen, others=others, dialect=_dialect(checkpoint, chosen))


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


def _prefixes(container: State, backbone: nn.Module) -> list[str]:
    """The prefixes, longest first, of at least a third as many tensors as the backbone has."""
    counts: Counter[str] = Counter()
    for key in container:
        counts.update(key[: dot.end()] for dot in re.finditer(r"\.", key))
    enough = len(_needed(backbone)) / 3
    found = [prefix for prefix, count in counts.items() if count >= enough]
    return [*sorted(found, key=lambda prefix: -len(prefix)), ""]


def _needed(backbone: nn.Module) -> list[str]:
    return [k for k in backbone.state_dict() if not k.endswith("num_batches_tracked")]


def _read(
    path: tuple[str, ...],
    container: State,
    prefix: str,
    backbone: nn.Module,
    classifier_keys: Sequence[str],
) -> Encoder:
    """The reading of the tensors under a prefix that fits best: complete, and with the most names."""
    shapes = {k: v.shape for k, v in backbone.state_dict().items()}
    needed = set(_needed(backbone))
    own = {k.removeprefix(prefix): v for k, v in container.items() if k.startswith(prefix)}
    best: Encoder | None = None
    for state in adapted(own, backbone):
        fitting = frozenset(
            k for k, v in state.items() if k in shapes and v.shape == shapes[k] and is_plain(v)
        )
        named = state.keys() & shapes.keys()
        further = tuple(
            k for k in state if k not in shapes and not _is_head(k, shapes, classifier_keys)
        )
        complete = needed <= fitting and named == fitting
        encoder = Encoder(path, prefix, container, own, state, fitting, further, complete)
        if complete and not further:
            return encoder
        if best is None or _fit(encoder) > _fit(best):
            best = encoder
    assert best is not None, "the names as they are can always be read"
    return best


def _fit(encoder: Encoder) -> tuple[bool, int, int]:
    return encoder.complete, len(encoder.fitting), -len(encoder.unexpected)


def _choose(
    found: list[Encoder], backbone: nn.Module, path: Path, which: str | None
) -> tuple[Encoder, tuple[str, ...]]:
    """The preferred one of the complete encoders, or the most complete one; and the names of others."""
    complete = sorted((e for e in found if e.complete), key=Encoder.rank)
    if not complete:
        closest = max(found, key=_fit)
        if not closest.state.keys() & backbone.state_dict().keys():
            raise MisfitError(
                f"{path} does not fit: it holds no tensor that the architecture has. The file holds "
                f"{_first(closest.container)}, the architecture has {_first(backbone.state_dict())}; name "
                "the architecture that these weights belong to"
            )
        return closest, ()
    distinct: list[Encoder] = []
    for encoder in complete:
        if not any(encoder.equals(other) for other in distinct):
            distinct.append(encoder)
    places = ", ".join(repr(e.name) for e in distinct)
    asked = distinct if which is None else [e for e in distinct if e.is_called(which)]
    if not asked:
        remedy = f"choose one with --encoder: {places}" if len(distinct) > 1 else "remove --encoder"
        raise DataError(f"{path} holds no encoder {which!r} of this architecture; {remedy}")
    best = [e for e in asked if e.rank() == asked[0].rank()]
    if len(best) > 1:
        raise DataError(
            f"{path} holds {len(best)} different backbones, at {', '.join(repr(e.name) for e in best)}; "
            f"choose one with --encoder {best[0].name}"
        )
    return best[0], tuple(e.name for e in distinct if e is not best[0])


def _is_head(key: str, own: dict[str, Any], classifier_keys: Sequence[str]) -> bool:
    """Whether a name under the backbone's prefix belongs to a head, not to a layer inside."""
    classifiers = {classifier.rpartition(".")[0] for classifier in classifier_keys}
    if any(key == module or key.startswith(f"{module}.") for module in classifiers):
        return True
    first = key.partition(".")[0]
    return (
        first not in {name.partition(".")[0] for name in own} and _HEAD.fullmatch(first) is not None
    )


def _dialect(checkpoint: Any, found: Encoder) -> str:
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


def _first(names: Any, num_shown: int = _SHOWN_KEYS) -> str:
    shown = [one_line(name) for name in names]
    more = f" and {len(shown) - num_shown} more" if len(shown) > num_shown else ""
    return ", ".join(shown[:num_shown]) + more


def _root(key: str, prefix: str) -> str:
    """The beginning of an unused name up to where it differs from `prefix`: "module.queue", "head.*"."""
    parts, depth = key.split("."), 1
    while depth < len(parts) and prefix.startswith(".".join(parts[:depth]) + "."):
        depth += 1
    return ".".join(parts[:depth]) + (".*" if depth < len(parts) else "")
