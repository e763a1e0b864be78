"""The accuracy that needs no features."""

import math

_SIGMAS = 3.0


def best_by_chance(largest_class: float, num_images: int) -> float:
    """The top-1 accuracy, in [0, 1], that naming the largest class may reach on `num_images`.

    `largest_class` is that class's share of all images; three standard deviations of a binomial
    share are added to it. What is not above this does not tell the classes apart.
    """
    return largest_class + _SIGMAS * math.sqrt(largest_class * (1 - largest_class) / num_images)
