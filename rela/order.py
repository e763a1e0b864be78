"""Which samples an epoch visits, and in which order."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rela.kernels import draws


def num_chosen(num_samples: int, data_ratio: float) -> int:
    """⌊data_ratio · N⌋, the ratio read as the decimal that was written: 0.29 of 100 is 29."""
    return int(Fraction(str(data_ratio)) * num_samples)


def epoch_order(
    num_samples: int, seed: int, epoch: int, data_ratio: float = 1.0
) -> NDArray[np.int64]:
    """The first ⌊data_ratio·N⌋ of a fresh permutation of N samples, int64.

    A pure function of its arguments: sorting one hash per sample gives the permutation, so no
    random state has to be kept, and every rank computes the same.
    """
    order = np.argsort(draws.hash_indices(seed, epoch, num_samples), kind="stable")
    return order[: num_chosen(num_samples, data_ratio)]
