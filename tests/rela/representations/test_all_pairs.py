"""Groups of similar rows and distances to the nearest rows (rela.representations.neighbors).

Against scikit-learn's cosines of centred rows and SciPy's connected components, in float64; in blocks smaller
than the matrices, which are files; rows of zeros, copies and chains.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from rela.representations import neighbors
from rela.representations.neighbors import mean_distances, similar_groups


@pytest.fixture
def matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Two matrices on disk, float16 and float32, with a large mean; searched in blocks of 16 rows."""
    monkeypatch.setattr(neighbors, "_SIDE", 16)
    rng = np.random.default_rng(0)
    values = 3 + rng.standard_normal((75, 6))
    values[60:] = values[:15] + 0.1 * rng.standard_normal((15, 6))
    values[40] = values[3]
    found = []
    for name, rows, dtype in (("train", values[:50], np.float16), ("val", values[50:], np.float32)):
        np.save(tmp_path / name, rows.astype(dtype))
        found.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    return found


def centred(matrices: list[np.ndarray]) -> np.ndarray:
    values = np.concatenate([each.astype(np.float64) for each in matrices])
    return np.asarray(values - values.mean(axis=0))


@pytest.mark.parametrize("threshold", [0.99, 0.9, 0.7, -1.0])
def test_groups_are_connected_components_of_similar_rows(
    matrices: list[np.ndarray], threshold: float
):
    cosines = cosine_similarity(centred(matrices))
    np.fill_diagonal(cosines, -2)
    num_groups, expected = connected_components(cosines >= threshold)
    told: list[tuple[int, int]] = []
    groups, similarities = similar_groups(
        matrices, threshold, tell=lambda done, of: told.append((done, of))
    )
    np.testing.assert_allclose(similarities, cosines.max(axis=1), atol=2e-6)
    assert len(set(groups)) == num_groups
    for group in set(groups):
        rows = np.flatnonzero(groups == group)
        assert rows[0] == group
        assert rows.tolist() == np.flatnonzero(expected == expected[group]).tolist()
    assert told == [(i, 21) for i in range(1, 22)]  # 6 blocks of rows


@pytest.mark.parametrize("k", [1, 5, 30, 74])
def test_distances_are_those_of_the_nearest_rows_of_scikit_learn(
    matrices: list[np.ndarray], k: int
):
    values = centred(matrices)
    expected, _ = NearestNeighbors(n_neighbors=k, metric="cosine").fit(values).kneighbors()
    np.testing.assert_allclose(mean_distances(matrices, k), expected.mean(axis=1), atol=2e-6)


def test_copies_and_chains_are_one_group_and_equal_rows_none():
    angles = np.radians([0, 20, 40, 60, 180, 200, 220, 240])
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # their mean is 0
    groups, _ = similar_groups([np.float32(ring)], np.cos(np.radians(21)))
    assert groups.tolist() == [0] * 4 + [4] * 4
    copies = np.repeat(np.eye(3, 4, dtype=np.float16), 500, axis=0)
    groups, similarities = similar_groups([copies], 0.999)
    assert groups.tolist() == [0] * 500 + [500] * 500 + [1000] * 500
    np.testing.assert_allclose(similarities, 1, atol=1e-6)
    same = np.full((4, 3), 7, np.float16)  # nothing is left but rounding
    assert similar_groups([same], 0.5)[1].tolist() == [0] * 4
    assert mean_distances([same], 9).tolist() == [1] * 4
