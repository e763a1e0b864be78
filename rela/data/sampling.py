"""The images of an epoch in their order, and the images of a labelled subset."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rela.data.kernels import draws
from rela.errors import ChoiceError

_SUBSET_EPOCH = 0xFFFFFFFF  # a labelled subset is the beginning of this epoch's order


def num_chosen(num_samples: int, data_ratio: float) -> int:
    """⌊data_ratio · N⌋ in decimal arithmetic: 0.29 of 100 is 29."""
    return int(Fraction(str(data_ratio)) * num_samples)


def num_batches(num_samples: int, data_ratio: float, batch_size: int) -> int:
    """Full batches of an epoch; raises ChoiceError if there is none."""
    chosen = num_chosen(num_samples, data_ratio)
    if chosen < batch_size:
        drawn = f"{chosen} of {num_samples} images" if data_ratio < 1 else f"{chosen} images"
        remedies = [f"lower --batch-size to {chosen} or less"] if chosen > 1 else []
        remedies += ["raise --data-ratio"] if data_ratio < 1 else []
        raise ChoiceError(
            f"{drawn} do not fill one batch of {batch_size}; "
            f"{', or '.join(remedies) or 'train on more images'}"
        )
    return chosen // batch_size


def epoch_order(
    num_samples: int, seed: int, epoch: int, data_ratio: float = 1.0
) -> NDArray[np.int64]:
    """The first ⌊data_ratio·N⌋ of a new permutation of N samples, int64.

    A pure function of its arguments: sorting one hash per sample gives the permutation, so there is no
    random state to save, and every rank computes the same order.
    """
    order = np.argsort(draws.hash_indices(seed, epoch, num_samples), kind="stable")
    return order[: num_chosen(num_samples, data_ratio)]


def label_subset(labels: NDArray[np.int64], percent: float, seed: int) -> NDArray[np.int64]:
    """Ascending rows (int64) of `percent` of the N labelled images of C classes, class-balanced.

    Every class gives round(percent · N / (100 · C)) images, at least one and at most all of its own.
    A smaller subset is part of a larger one; 100 % gives all labelled rows.
    """
    labelled = np.flatnonzero(labels >= 0)
    if percent >= 100:
        return labelled
    classes = np.unique(labels[labelled])
    per_class = max(1, round(percent * len(labelled) / (100 * len(classes))))
    order = epoch_order(len(labels), seed, _SUBSET_EPOCH)
    chosen = [order[labels[order] == label][:per_class] for label in classes]
    return np.sort(np.concatenate(chosen))
