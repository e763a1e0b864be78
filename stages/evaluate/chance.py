"""What accuracy chance reaches on a split, and how much an accuracy varies with its images."""

import math
from dataclasses import dataclass

from rela.stages.workspace.dataset import DataSet


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
        """Standard deviation of an accuracy over draws of as many images, √(a (1 − a) / N)."""
        return math.sqrt(accuracy * (1 - accuracy) / self.num_images)


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
