"""By which settings features are measured. No torch here, so that results can be looked up fast."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class KNNProtocol:
    """Cosine neighbours weighted by exp(similarity / temperature) (arXiv 1805.01978)."""

    k: int
    temperature: float = 0.07

    @property
    def name(self) -> str:
        """`knn20`, `knn200`."""
        return f"knn{self.k}"

    def describe(self) -> str:
        """One line for tables and reports."""
        return f"k = {self.k}, T = {self.temperature:g}, cosine, centre-crop features"


@dataclass(frozen=True)
class LinearProtocol:
    """How the layer is trained. Accuracies are those of the last epoch, never of the best.

    `cosine` decays the rate to zero along a half cosine.
    """

    name: str
    optimizer: Literal["adam", "sgd"]
    lr: float
    epochs: int
    batch_size: int
    cosine: bool

    def describe(self) -> str:
        """One line for tables and reports."""
        schedule = "cosine" if self.cosine else "constant"
        return (
            f"{self.optimizer}, lr {self.lr:g} {schedule}, {self.epochs} epochs, batch "
            f"{self.batch_size}, centre-crop features, last epoch"
        )


REFERENCE_PROTOCOL = LinearProtocol("linear-reference", "adam", 3e-4, 100, 128, cosine=False)
LIGHTLY_PROTOCOL = LinearProtocol("linear-lightly", "sgd", 0.1, 90, 256, cosine=True)
KNN_PROTOCOLS = (KNNProtocol(20), KNNProtocol(200))
LINEAR_PROTOCOLS = (REFERENCE_PROTOCOL, LIGHTLY_PROTOCOL)
