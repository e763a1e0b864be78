"""k-NN of positions (rela.evaluation.dense_knn).

- the same figures as scikit-learn's KNeighborsClassifier on the same rows, with patches counted by a loop;
- a seed draws as many training positions as asked for; blocks of images change nothing;
- chance is that of scikit-learn's DummyClassifier; masks that are all void are refused.
"""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import jaccard_score
from sklearn.neighbors import KNeighborsClassifier

from rela.errors import DataError
from rela.evaluation import dense_knn as dense
from rela.evaluation.feature_maps import FeatureMaps
from rela.evaluation.protocols import DenseKNNProtocol

PROTOCOL = DenseKNNProtocol(k=5, num_classes=4, max_positions=60)


def noisy_maps(count: int, seed: int, side: int = 20) -> FeatureMaps:
    """Maps [8, 3, 5] and masks of 20 × 20 pixels, in which no patch but the void ones is of one class."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (count, 3, 5))
    centers = np.random.default_rng(9).standard_normal((3, 8))
    features = centers[coarse] + 0.8 * rng.standard_normal((count, 3, 5, 8))
    rows, columns = (np.arange(side) * places // side for places in (3, 5))
    masks = coarse[:, rows][:, :, columns].astype(np.uint8)
    other = rng.random(masks.shape)
    masks[other < 0.3] = rng.integers(0, 3)
    masks[other > 0.8] = 255
    masks[0, :10] = 255
    return FeatureMaps(features.transpose(0, 3, 1, 2).astype(np.float16), masks)


def rows_by_hand(maps: FeatureMaps) -> tuple[np.ndarray, np.ndarray]:
    """Features and classes of the labelled positions, pixel by pixel."""
    features, classes = [], []
    _, _, height, width = maps.features.shape
    for image, mask in enumerate(maps.masks):
        votes = np.zeros((height, width, 4))
        for (y, x), label in np.ndenumerate(mask):
            if label != 255:
                votes[y * height // len(mask), x * width // len(mask), label] += 1
        for y, x in np.argwhere(votes.sum(axis=2)):
            features.append(maps.features[image, :, y, x].astype(np.float64))
            classes.append(votes[y, x].argmax())
    return np.array(features), np.array(classes)


@pytest.mark.parametrize("max_positions", [60, 1000])
@pytest.mark.parametrize("images_at_a_time", [1, 9])
def test_positions_vote_as_in_scikit_learn(
    max_positions: int, images_at_a_time: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dense, "block_rows", lambda width: 15 * images_at_a_time)
    protocol = replace(PROTOCOL, max_positions=max_positions)
    train, val = noisy_maps(8, 0), noisy_maps(6, 1)
    (x, y), (x_val, y_val) = (rows_by_hand(maps) for maps in (train, val))
    if max_positions < len(y):  # the rows that the seed draws are among these, in this order
        drawn, classes = dense.training_positions(train, protocol, seed=3)
        places = [int(np.flatnonzero((x == row).all(axis=1))[0]) for row in drawn]
        assert sorted(set(places)) == places and len(places) == max_positions
        x, y = x[places], y[places]
        assert (y == classes).all()
    reference = KNeighborsClassifier(
        5, weights=lambda distance: np.exp((1 - distance) / 0.07), metric="cosine"
    )
    predicted = reference.fit(x, y).predict(x_val)
    found = dense.dense_knn(train, val, protocol, seed=3)
    assert found["num_train_positions"] == len(y) and found["num_val_positions"] == len(y_val)
    assert found["position_accuracy"] == pytest.approx((predicted == y_val).mean())
    assert found["miou"] == pytest.approx(jaccard_score(y_val, predicted, average="macro"))
    chance = DummyClassifier().fit(x_val, y_val).predict(x_val)
    assert found["chance_accuracy"] == pytest.approx((chance == y_val).mean())
    expected = jaccard_score(y_val, chance, average="macro")
    assert found["chance_miou"] == pytest.approx(expected)
    assert found["chance_miou"] < found["miou"] < found["position_accuracy"] < 1


def test_other_seeds_draw_other_positions():
    train = noisy_maps(8, 0)
    first, again, other = (dense.training_positions(train, PROTOCOL, s)[0] for s in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_only_void_is_refused():
    maps = noisy_maps(2, 0)
    void = FeatureMaps(maps.features, np.full_like(maps.masks, 255))
    for train, val, split in ((void, maps, "train"), (maps, void, "val")):
        with pytest.raises(DataError, match=f"every pixel of every {split} mask is void"):
            dense.dense_knn(train, val, PROTOCOL)
