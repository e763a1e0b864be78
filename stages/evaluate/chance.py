"""What accuracy chance reaches on a split, and how much an accuracy varies with its images."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rela.stages.workspace.dataset import DataSet

_Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


@dataclass(frozen=True)
class Chance:
    """Accuracies in [0, 1] of a classifier that ignores the images.

    - `top1`, `top5`: of always predicting the largest class, or the five largest;
    - `limit`: no top-1 accuracy up to it is better than chance, see rela.evaluation.metrics.chance_level;
    - `num_images` that were predicted.
    """

    top1: float
    top5: float
    limit: float
    num_images: int

    def sampling_error(self, accuracy: float) -> float:
        """Half the width of Wilson's 95 % interval: what an accuracy on other images may differ by.

        Not 0 for an accuracy of 1. E. B. Wilson, Journal of the American Statistical Association 22, 1927.
        """
        n = self.num_images
        return _Z / (1 + _Z**2 / n) * math.sqrt(accuracy * (1 - accuracy) / n + (_Z / (2 * n)) ** 2)

    def spread_in_words(self, dataset: str | None, top1: Iterable[float]) -> str:
        """How far the least certain of these accuracies varies with the images."""
        error = max(self.sampling_error(min(1.0, each)) for each in top1)
        return (
            f"top-1 varies by ± {100 * error:.2f} points with the {self.num_images:,} validation images of "
            f"{dataset} (95 % interval)"
        )


def chance_of(dataset: DataSet, split: str = "val") -> Chance | None:
    """For the classes of a split; None where they are not known."""
    from rela.evaluation.metrics import chance_level

    if not dataset.content.labelled or split not in dataset.splits:
        return None
    sizes = sorted(dataset.splits[split].images_per_class, reverse=True)
    total = sum(sizes)
    if not total or sizes[-1] < 0:
        return None
    top1 = sizes[0] / total
    return Chance(top1, sum(sizes[:5]) / total, min(1.0, chance_level(top1, total)), total)
