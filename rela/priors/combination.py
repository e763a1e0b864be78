"""Several priors as one: who they are, in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rela.priors.prior import PriorIdentity

JOINT = "+"


@dataclass(frozen=True)
class Combination:
    """Two or more priors whose representations stand side by side, in this order.

    It answers to `name`, `key` and `as_dict` like a PriorIdentity; there is no model to load.
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
    """One prior as it is, several as a combination."""
    return identities[0] if len(identities) == 1 else Combination(tuple(identities))


def identity_from_dict(values: dict[str, Any]) -> PriorIdentity | Combination:
    """The inverse of `as_dict` of either."""
    return combined([PriorIdentity.from_dict(v) for v in values.get("components", [values])])
