"""What is said about figures (rela.stages.evaluate.comparison), on figures made up for it.

- accuracies up to the chance level are named, with their protocol; those above it are not;
- two probes of different kinds in opposite orders disagree; of the same kind, on other data sets or in
  the same order they do not; differences within the sampling error are called so;
- every accuracy and the clearest pairs come in words.
"""

import numpy as np
import pytest

from rela.stages.evaluate.chance import Chance
from rela.stages.evaluate.comparison import Compared, below_chance, disagreements, in_words

CHANCE = Chance(top1=0.1, top5=0.5, limit=0.1285, num_images=1000)


def one(name: str, knn20: float, linear: float, dataset: str = "photos") -> Compared:
    return Compared(name, dataset, {"knn20": knn20, "linear": linear}, CHANCE)


def test_accuracies_that_chance_may_reach_are_named():
    found = below_chance([one("a", 0.1285, 0.13), one("b", 0.5, 0.05)])
    assert [(f.evaluated, f.protocol, f.top1) for f in found] == [
        ("a", "knn20", 0.1285), ("b", "linear", 0.05),
    ]  # fmt: skip
    assert found[1].words() == (
        "b: 5.00 % by linear is no better than chance (up to 12.85 % on 1,000 images)"
    )
    assert below_chance([Compared("c", None, {"knn20": 0.0}, None)]) == []


def test_probes_in_opposite_orders_disagree():
    [found] = disagreements([one("a", 0.80, 0.70), one("b", 0.70, 0.80), one("c", 0.1, 0.1)])
    assert (found.better, found.worse, found.is_clear) == ("a", "b", True)
    assert found.words() == (
        "the probes disagree: a is better than b by 20-NN (80.00 against 70.00 %), "
        "worse by linear (70.00 against 80.00 %)"
    )
    [swapped] = disagreements([one("b", 0.70, 0.80), one("a", 0.80, 0.70)])
    assert swapped.words() == found.words()


def test_differences_within_the_sampling_error_are_not_shown():
    [found] = disagreements([one("a", 0.80, 0.70), one("b", 0.79, 0.80)])
    assert not found.is_clear
    assert in_words([], [found]) == []


@pytest.mark.parametrize(("right", "images"), [(30, 30), (0, 30), (17, 30), (9311, 10000)])
def test_the_sampling_error_is_that_of_wilson(right: int, images: int):
    """His bounds are the shares p whose distance to the accuracy a is z standard deviations of p."""
    z, a = 1.959964, right / images
    low, high = sorted(np.roots([1 + z**2 / images, -2 * a - z**2 / images, a**2]).real)
    error = Chance(0.1, 0.5, 0.2, images).sampling_error(a)
    assert error == pytest.approx((high - low) / 2, rel=1e-6)
    words = Chance(0.1, 0.5, 0.2, images).spread_in_words("photos", [a])
    assert f"± {100 * error:.2f} points with the {images:,} validation images of photos" in words


@pytest.mark.parametrize(
    "pair",
    [
        (one("a", 0.8, 0.8), one("b", 0.7, 0.7)),
        (one("a", 0.8, 0.7), one("b", 0.8, 0.8)),
        (one("a", 0.8, 0.7), one("b", 0.7, 0.8, dataset="others")),
        (
            Compared("a", "photos", {"knn20": 0.8, "knn200": 0.7}, CHANCE),
            Compared("b", "photos", {"knn20": 0.7, "knn200": 0.8}, CHANCE),
        ),
        (
            Compared("a", "photos", {"knn20": 0.8}, CHANCE),
            Compared("b", "photos", {"linear": 0.9}, CHANCE),
        ),
    ],
)
def test_others_do_not(pair: tuple[Compared, Compared]):
    assert disagreements(pair) == []


def test_clear_ones_are_shown_and_the_others_counted():
    several = [one(str(i), 0.6 + 0.002 * i, 0.7 - 0.03 * i) for i in range(4)]
    found = disagreements([*several, one("far", 0.9, 0.3)])
    assert len(found) == 10  # of which six are within the sampling error
    lines = in_words([], found)
    assert len(lines) == 4
    assert all("far" in line for line in lines[:3])
    assert lines[-1] == "the probes disagree about 1 more pair (see --json)"
