"""What a prior is: an identity that features depend on, and a model that can be loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.preprocessing import Preprocessing

# Bumped by hand when the same identity would give other features.
EMBEDDING_VERSION = 1


@dataclass(frozen=True)
class PriorRequest:
    """What a user asked for; enough to find the prior again.

    - `name`: `resnet18`, `random:resnet18`, `run:NAME`;
    - `weights`: a local file in place of the model's default weights;
    - `seed`: initial weights of a random prior;
    - `image_size`: input size of a random prior, pixels.
    """

    name: str
    weights: Path | None = None
    seed: int = 0
    image_size: int = 224


@dataclass(frozen=True)
class PriorIdentity:
    """Everything that the features of a prior depend on, and nothing else.

    `weights_sha256` is `rela.weights.state_sha256` of the backbone, so the same weights in another
    file are the same prior. `name` is for people and plays no part in the key.
    """

    name: str
    arch: str
    image_size: int
    weights_sha256: str
    preprocessing: Preprocessing
    feature_dim: int

    def key(self) -> dict[str, Any]:
        """The ingredients of the fingerprint of its representations."""
        return {
            "embedding_version": EMBEDDING_VERSION,
            "arch": self.arch,
            "image_size": self.image_size,
            "weights_sha256": self.weights_sha256,
            "layer": "pooled",
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
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PriorIdentity":
        """The inverse of `as_dict`."""
        preprocessing = Preprocessing.from_dict(values["preprocessing"])
        return cls(**{**values, "preprocessing": preprocessing})


@dataclass(frozen=True)
class Prior:
    """An identity with the backbone that has it.

    `load` returns a torch module in eval mode: images [B, 3, S, S] → features [B, D]. `weights_file`
    is the file that the weights came from, if any.
    """

    identity: PriorIdentity
    load: Callable[[], Any]
    weights_file: Path | None = None
