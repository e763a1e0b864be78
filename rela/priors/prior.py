"""A prior: the request for it, its kind, its identity, and a combination of several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # neither torch nor numpy until a prior is built
    from torch import nn

    from rela.models.preprocessing import Preprocessing

POOLED = "pooled"  # the layer that is a backbone's own features
JOINT = "+"  # between the names of several priors
# Bumped by hand when the same identity would give other features.
EMBEDDING_VERSION = 1


@dataclass(frozen=True)
class PriorRequest:
    """The user's choice, complete enough to find the prior again.

    - `name`: `resnet18`, `timm:NAME`, `clip:NAME@TAG`, `file:PATH`, `random:resnet18`, `run:NAME`;
    - `weights`: a local file in place of the model's default weights;
    - `seed`: initial weights of a random prior;
    - `image_size`: input size in pixels of a prior without a published one, or if `resizes` of any;
    - `arch`: the architecture of the weights in a `file:PATH`; `encoder`: which one of several in a file;
    - `layer`: which features, see `rela.models.layers`;
    - `trust_code`: open TorchScript files, which runs their code;
    - `resize`, `interpolation`, `mean`, `std`: what replaces the preprocessing that is known otherwise, see
      `rela.models.preprocessing`.
    """

    name: str
    weights: Path | None = None
    seed: int = 0
    image_size: int = 224
    resizes: bool = False
    arch: str | None = None
    layer: str = POOLED
    trust_code: bool = False
    encoder: str | None = None
    resize: int | None = None
    interpolation: str | None = None
    mean: str | None = None
    std: str | None = None


class PriorKind(Protocol):
    """What a module of `rela.priors` states about its kind of prior; importing it is cheap.

    - `PREFIX`: how its names begin, `clip:`; empty for torchvision's;
    - `METAVAR`: what follows the prefix in help texts, `NAME`;
    - `EXAMPLE`: a whole name;
    - `ABOUT`: the weights, in a few words for `rela priors list`;
    - `EXTRA`: the extra of pyproject.toml that installs `PACKAGES`, empty for none;
    - `PACKAGES`: distributions that its models come from, by import name; results record their versions;
    - `LITERAL`: which of `@` (before a layer), `+` (between priors) and `,` (never in a name) are
      ordinary characters of its names.
    """

    PREFIX: str
    METAVAR: str
    EXAMPLE: str
    ABOUT: str
    EXTRA: str
    PACKAGES: dict[str, str]
    LITERAL: str

    def names(self) -> list[str]:
        """Names to choose from, as a user gives them; none if its packages are not installed."""

    def resolve(self, request: PriorRequest) -> "Prior":
        """Find and build the prior that `request` names; its layer is selected afterwards."""


@dataclass(frozen=True)
class PriorIdentity:
    """Everything that determines the features of a prior, and nothing else.

    `weights_sha256` is `rela.models.weights.state_sha256` of the backbone, so the same weights in another
    file are the same prior; for TorchScript it is the file's digest. `name` is only for display and not part
    of the key.
    """

    name: str
    arch: str
    image_size: int
    weights_sha256: str
    preprocessing: "Preprocessing"
    feature_dim: int
    layer: str = POOLED

    def key(self) -> dict[str, Any]:
        """The part of the fingerprint of its representations that depends on the prior."""
        return {
            "embedding_version": EMBEDDING_VERSION,
            "arch": self.arch,
            "image_size": self.image_size,
            "weights_sha256": self.weights_sha256,
            "layer": self.layer,
            "preprocessing": self.preprocessing.as_dict(),
        }

    def as_dict(self) -> dict[str, Any]:
        """For manifests and records."""
        return {
            "name": self.name,
            "arch": self.arch,
            "image_size": self.image_size,
            "weights_sha256": self.weights_sha256,
            "preprocessing": self.preprocessing.as_dict(),
            "feature_dim": self.feature_dim,
            "layer": self.layer,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PriorIdentity":
        """The inverse of `as_dict`; raises TypeError, ValueError or KeyError for anything else."""
        from rela.models.preprocessing import Preprocessing

        if not isinstance(values, dict):
            raise TypeError("not a description of a prior")
        identity = cls(
            **{**values, "preprocessing": Preprocessing.from_dict(values["preprocessing"])}
        )
        texts = identity.name, identity.arch, identity.weights_sha256, identity.layer
        counts = identity.image_size, identity.feature_dim
        if {*map(type, texts)} != {str} or {*map(type, counts)} != {int} or min(counts) < 1:
            raise TypeError("not a description of a prior")
        return identity


@dataclass(frozen=True)
class Prior:
    """A backbone with its identity.

    `load` returns a torch module in eval mode: images [B, 3, S, S] → features [B, D]. `weights_file` is the
    file of the weights, if any, and `note` describes what was found in it.
    """

    identity: PriorIdentity
    load: Callable[[], Any]
    weights_file: Path | None = None
    note: str = ""


def prior_with(
    backbone: "nn.Module",
    name: str,
    arch: str,
    preprocessing: "Preprocessing",
    weights_file: Path | None = None,
    note: str = "",
) -> Prior:
    """The prior of a backbone in eval mode; width and digest of the weights are taken from it."""
    from rela.models.backbones import feature_dim
    from rela.models.weights import state_sha256

    size, sha256 = preprocessing.crop, state_sha256(backbone.state_dict())
    width = feature_dim(backbone, size)
    identity = PriorIdentity(name, arch, size, sha256, preprocessing, width)
    return Prior(identity, lambda: backbone, weights_file, note)


def as_requested(prior: Prior, request: PriorRequest) -> Prior:
    """The prior with the requested layer, and preprocessing where it was set."""
    before = prior.identity.preprocessing
    after = before.changed(request.resize, request.interpolation, request.mean, request.std)
    if after != before:
        prior = replace(prior, identity=replace(prior.identity, preprocessing=after))
    return at_layer(prior, request.layer)


def at_layer(prior: Prior, layer: str) -> Prior:
    """The same prior with the features of another layer; raises ChoiceError if there is no such layer."""
    if layer == POOLED:
        return prior
    from rela.models.backbones import feature_dim
    from rela.models.layers import LayerFeatures

    backbone = LayerFeatures(prior.load(), layer).eval()
    identity = replace(
        prior.identity,
        name=f"{prior.identity.name}@{layer}",
        layer=layer,
        feature_dim=feature_dim(backbone, prior.identity.image_size),
    )
    return replace(prior, identity=identity, load=lambda: backbone)


@dataclass(frozen=True)
class Combination:
    """Two or more priors whose representations are concatenated in this order.

    It has `name`, `key` and `as_dict` like a PriorIdentity, and no model of its own.
    """

    components: tuple[PriorIdentity, ...]

    @property
    def name(self) -> str:
        """`resnet18+vit_b_16`."""
        return JOINT.join(component.name for component in self.components)

    def key(self) -> dict[str, Any]:
        """The ingredients of every component's key, in order."""
        return {"combination": [component.key() for component in self.components]}

    def as_dict(self) -> dict[str, Any]:
        """For manifests."""
        return {"name": self.name, "components": [c.as_dict() for c in self.components]}


def combined(identities: Sequence[PriorIdentity]) -> PriorIdentity | Combination:
    """The identity of one prior, or the combination of several."""
    return identities[0] if len(identities) == 1 else Combination(tuple(identities))


def identity_from_dict(values: dict[str, Any]) -> PriorIdentity | Combination:
    """The inverse of `as_dict` of either."""
    return combined([PriorIdentity.from_dict(v) for v in values.get("components", [values])])
