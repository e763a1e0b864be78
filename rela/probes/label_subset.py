"""Which images keep their labels: the same number of every class, a function of the seed alone."""

import numpy as np
from numpy.typing import NDArray

from rela.order import epoch_order

_SUBSET_EPOCH = 0xFFFFFFFF  # the "epoch" whose order the subset is the beginning of


def label_subset(labels: NDArray[np.int64], percent: float, seed: int) -> NDArray[np.int64]:
    """Ascending rows (int64) of `percent` of the labelled images, class-balanced.

    Every class gives round(percent · N / (100 · C)) images, but at least one and at most what it
    has; a smaller share is part of a larger one. All rows with a label at 100 %.
    """
    labelled = np.flatnonzero(labels >= 0)
    if percent >= 100:
        return labelled
    classes = np.unique(labels[labelled])
    per_class = max(1, round(percent * len(labelled) / (100 * len(classes))))
    order = epoch_order(len(labels), seed, _SUBSET_EPOCH)
    chosen = [order[labels[order] == label][:per_class] for label in classes]
    return np.sort(np.concatenate(chosen))
