"""Counter-based draws (rela.data.kernels.draws): published splitmix64 numbers, torchvision's distributions.

- the stream of a key, its uniformity, and that seed, epoch, index and view each give another one;
- crops as RandomResizedCrop draws them, colours as ColorJitter does; probabilities; independence.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms

from rela.data.kernels import draws
from rela.data.views import View

NUM_DRAWS = 4000
SPLITMIX64_OF_1234567 = [  # published with the reference implementation's test vectors
    6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
    16408922859458223821,
]  # fmt: skip


def drawn(view: View, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Parameters of one view of NUM_DRAWS samples, float64 [NUM_DRAWS, PARAMETER_COLUMNS]."""
    out = np.empty((NUM_DRAWS, draws.PARAMETER_COLUMNS))
    spec = np.array(view.row())
    for index, row in enumerate(out):
        key = draws.draw_key(np.uint64(seed), np.uint64(0), np.int64(index), 0)
        draws.draw_parameters(np.uint64(key), spec, height, width, row)
    return out


def assert_same_distribution(one, other) -> None:
    assert stats.ks_2samp(one, other).pvalue > 1e-3


def test_the_stream_of_a_key_is_splitmix64():
    for counter, expected in enumerate(SPLITMIX64_OF_1234567):
        assert draws.uniform(np.uint64(1234567), counter) == (expected >> 11) / 2**53


def test_draws_are_uniform_in_the_unit_interval():
    key = np.uint64(99)
    values = np.array([draws.uniform(key, counter) for counter in range(50_000)])
    assert values.min() >= 0 and values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.02


@pytest.mark.parametrize("varied", ["seed", "epoch", "index", "view"])
def test_seed_epoch_index_and_view_each_give_another_stream(varied):
    def key(number: int) -> np.uint64:
        values = {"seed": 3, "epoch": 3, "index": 3, "view": 3, varied: number}
        return np.uint64(draws.draw_key(*(np.uint64(v) for v in values.values())))

    keys = [key(number) for number in range(5000)]
    assert len(set(keys)) == 5000
    first = np.array([draws.uniform(k, 0) for k in keys])
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.06


def test_swapping_epoch_and_index_gives_another_stream():
    one, other = (draws.draw_key(*map(np.uint64, four)) for four in ((0, 1, 2, 0), (0, 2, 1, 0)))
    assert one != other


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (33, 33), (20, 90)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0)])
def test_crops_are_distributed_as_torchvisions(size, scale):
    height, width = size
    ours = drawn(View(32, scale=scale), height, width)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3])
            for _ in range(NUM_DRAWS)
        ],
        float,
    )
    for column in range(4):
        assert_same_distribution(ours[:, column], theirs[:, column])
    for statistic in (
        lambda p: p[:, 2] * p[:, 3],  # area
        lambda p: p[:, 2] / p[:, 3],  # aspect
        lambda p: p[:, 0] + p[:, 2] / 2 + p[:, 1] + p[:, 3] / 2,  # centre
    ):
        assert_same_distribution(statistic(ours), statistic(theirs))
    assert (ours[:, :4] >= 0).all() and (ours[:, 2:4] >= 1).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all()


@pytest.mark.parametrize("size", [(5, 300), (300, 5), (7, 41), (1, 1)])
def test_the_fallback_crop_is_torchvisions(size):
    view = View(32, scale=(1.0, 1.0))
    theirs = transforms.RandomResizedCrop.get_params(
        torch.empty(3, *size), [1.0, 1.0], [3 / 4, 4 / 3]
    )
    assert (drawn(view, *size)[:, :4] == np.array(theirs)).all()


@pytest.mark.parametrize("strength", [0.4, 0.8, 1.5])
def test_colours_are_distributed_as_torchvisions(strength):
    jitter = transforms.ColorJitter(strength, strength, strength, min(strength, 0.5))
    torch.manual_seed(0)
    theirs = np.array(
        [
            jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)[1:]
            for _ in range(NUM_DRAWS)
        ]
    )
    view = View(
        32, jitter_probability=1.0, brightness=strength, contrast=strength, saturation=strength,
        hue=min(strength, 0.5),
    )  # fmt: skip
    ours = drawn(view, 32, 32)
    for column, name in enumerate((draws.BRIGHTNESS, draws.CONTRAST, draws.SATURATION, draws.HUE)):
        assert_same_distribution(ours[:, name], theirs[:, column])
    orders = np.bincount(ours[:, draws.ORDER].astype(int), minlength=24)
    assert len(orders) == 24 and stats.chisquare(orders).pvalue > 1e-3


def test_every_probability_is_met():
    view = View(
        32, flip_probability=0.5, jitter_probability=0.8, gray_probability=0.2,
        blur_probability=0.3, solarize_probability=0.1,
    )  # fmt: skip
    found = drawn(view, 32, 32)
    for happened, probability in (
        (found[:, draws.FLIP] == 1, 0.5), (found[:, draws.ORDER] >= 0, 0.8),
        (found[:, draws.GRAY] == 1, 0.2), (found[:, draws.SIGMA] > 0, 0.3),
        (found[:, draws.SOLARIZE] == 1, 0.1),
    ):  # fmt: skip
        assert stats.binomtest(int(happened.sum()), NUM_DRAWS, probability).pvalue > 1e-3
    sigma = found[:, draws.SIGMA][found[:, draws.SIGMA] > 0]
    assert stats.kstest(sigma, "uniform", (0.1, 1.9)).pvalue > 1e-3


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 1)])
def test_probabilities_0_and_1_are_exact(probability, expected):
    view = View(32, flip_probability=probability, gray_probability=probability)
    found = drawn(view, 32, 32)
    assert (found[:, [draws.FLIP, draws.GRAY]] == expected).all()


def test_parameters_are_independent_of_each_other():
    view = View(32, jitter_probability=0.5, blur_probability=0.5, solarize_probability=0.5)
    found = drawn(view, 64, 64)
    columns = [c for c in range(draws.PARAMETER_COLUMNS) if c not in (0, 1, 2, 3)]
    correlation = np.corrcoef(found[:, columns], rowvar=False) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.08


def test_a_probability_does_not_shift_the_other_draws():
    one = drawn(View(32, jitter_probability=1.0, flip_probability=0.0), 32, 32)
    other = drawn(View(32, jitter_probability=1.0, flip_probability=1.0), 32, 32)
    kept = [c for c in range(draws.PARAMETER_COLUMNS) if c != draws.FLIP]
    np.testing.assert_array_equal(one[:, kept], other[:, kept])
