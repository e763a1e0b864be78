"""Figures of representations (rela.representations.quality), against closed forms, full SVDs and torch.

- effective rank: a full SVD, orthogonal columns, one direction, identity covariance, tall and wide;
- uniformity: torch.pdist as in the paper's own code, one point, antipodes, the sphere of many dimensions;
- spread of directions: isotropic rows, one direction, opposite rows, torch;
- CKA: its definition by Gram matrices, 1 for rotated, scaled and moved copies, 0 for independent ones;
- sampled rows are the same for every call, without repetition.
"""

import numpy as np
import pytest
import torch

from rela.representations.quality import (
    effective_rank,
    feature_std,
    linear_cka,
    sample_rows,
    uniformity,
)


def features(num_rows: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num_rows, width)) * np.geomspace(1, 20, width) + 1


def rotation(width: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(9).standard_normal((width, width)))[0]


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (64, 64)])
def test_effective_rank_is_the_entropy_of_a_full_svd(shape: tuple[int, int]):
    rows = features(*shape)
    shares = torch.linalg.svdvals(torch.from_numpy(rows))
    entropy = torch.distributions.Categorical(probs=shares).entropy()
    assert effective_rank(rows) == pytest.approx(float(entropy.exp()), rel=1e-9)


def test_effective_rank_in_closed_form():
    assert effective_rank(7 * rotation(40)[:, :13]) == pytest.approx(13, rel=1e-9)
    two = np.diag([3.0, 1.0, 0.0, 0.0])
    assert effective_rank(two) == pytest.approx(4 / 3**0.75, rel=1e-9)  # exp(H(3/4, 1/4))
    one = np.outer(features(500, 1), features(1, 200))
    assert effective_rank(one) == pytest.approx(1, abs=1e-3)
    assert effective_rank(np.zeros((5, 3))) == 0
    identity_covariance = np.random.default_rng(0).standard_normal((50_000, 16))
    assert 15.99 < effective_rank(identity_covariance) <= 16


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("num_rows", [2, 512, 700])
def test_uniformity_is_the_papers(num_rows: int, dtype: str):
    rows = features(num_rows, 6).astype(dtype)
    points = torch.nn.functional.normalize(torch.from_numpy(rows.astype(np.float64)), dim=1)
    reference = torch.pdist(points).pow(2).mul(-2).exp().mean().log()
    assert uniformity(rows) == pytest.approx(float(reference), rel=1e-9)


def test_uniformity_in_closed_form():
    assert uniformity(np.full((9, 4), 0.3)) == pytest.approx(0, abs=1e-9)
    assert uniformity(np.array([[1.0, 0], [-5.0, 0]])) == pytest.approx(-8, rel=1e-9)
    assert uniformity(np.array([[0.0, 0], [0.0, 3]])) == pytest.approx(-2, rel=1e-9)
    sphere = np.random.default_rng(0).standard_normal((600, 2000))
    assert uniformity(sphere) == pytest.approx(-4, abs=0.01)


def test_cka_is_its_definition_by_gram_matrices():
    rows = [features(90, 5), features(90, 40, 1), features(90, 200, 2)]
    rows[1][:, :5] += rows[0]
    centring = np.eye(90) - 1 / 90
    grams = [centring @ r @ r.T @ centring for r in rows]
    expected = [
        [np.trace(k @ m) / (np.linalg.norm(k) * np.linalg.norm(m)) for m in grams] for k in grams
    ]
    np.testing.assert_allclose(linear_cka(rows), expected, rtol=1e-9)


def test_cka_of_rotated_scaled_and_moved_copies_is_one():
    rows = features(200, 12)
    copies = [rows, rows @ rotation(12), -3 * rows + 50, np.hstack([rows, rows])]
    np.testing.assert_allclose(linear_cka(copies), 1, rtol=1e-9)


def test_cka_of_unrelated_representations_is_zero():
    left, right = rotation(64)[:, :10], rotation(64)[:, 10:20]
    centred = np.eye(64) - 1 / 64
    left, right = centred @ left, centred @ right
    right -= left @ np.linalg.pinv(left) @ right  # orthogonal to every centred column of `left`
    found = linear_cka([left, right, np.full((64, 3), 4.0)])
    np.testing.assert_allclose(found, np.diag([1.0, 1, 0]), atol=1e-9)


def test_sampled_rows_are_reproducible():
    rows = sample_rows(1000, 200)
    assert len(set(rows.tolist())) == 200
    assert (rows >= 0).all() and (rows < 1000).all()
    np.testing.assert_array_equal(rows, sample_rows(1000, 200))
    np.testing.assert_array_equal(rows[:50], sample_rows(1000, 50))
    assert sorted(sample_rows(7, 5000)) == list(range(7))
    assert 400 < rows[:40].mean() < 600  # any stretch is spread over all of them


def test_the_spread_of_directions_is_one_for_isotropic_rows_and_zero_for_one_direction():
    rng = np.random.default_rng(0)
    assert feature_std(rng.standard_normal((20_000, 64))) == pytest.approx(1, abs=0.01)
    assert feature_std(np.outer(rng.uniform(1, 9, 50), rng.standard_normal(8))) < 1e-7
    assert feature_std(np.zeros((5, 3))) == 0
    assert feature_std(np.array([[2.0, 0.0], [-7.0, 0.0]])) == pytest.approx(2**0.5 / 2)


def test_the_spread_of_directions_is_that_of_simsiam():
    rows = features(200, 9).astype(np.float32)
    directions = torch.nn.functional.normalize(torch.from_numpy(rows).double(), dim=1)
    expected = directions.std(dim=0, unbiased=False).mean() * 3
    assert feature_std(rows) == pytest.approx(float(expected), rel=1e-9)
