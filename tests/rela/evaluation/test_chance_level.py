"""What accuracy chance may reach (rela.evaluation.metrics), against drawn labels."""

import numpy as np
import pytest

from rela.evaluation.metrics import chance_level


@pytest.mark.parametrize(("largest", "count"), [(0.1, 200), (0.5, 64), (0.04, 5000)])
def test_it_is_rarely_exceeded_by_naming_the_largest_class(largest: float, count: int) -> None:
    rng = np.random.default_rng(0)
    accuracies = (rng.random((2000, count)) < largest).mean(axis=1)
    exceeded = (accuracies > chance_level(largest, count)).mean()
    assert exceeded < 0.005
    assert (accuracies > largest + (chance_level(largest, count) - largest) / 3).mean() > 0.1


def test_a_single_class_is_always_right() -> None:
    assert chance_level(1.0, 10) == 1.0
