"""The maps of features in a report (rela.stages.report.feature_map), against scikit-learn."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from rela.stages.report.feature_map import principal_plane, umap_plane


def test_the_plane_is_scikit_learns():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1]
    expected = PCA(2).fit_transform(features)
    found = principal_plane(features)
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-9)
    assert principal_plane(features[:1]).shape == (1, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the package's own
def test_umap_keeps_digits_together():
    pytest.importorskip("umap")
    digits = load_digits()
    features, labels = digits.data[:600], digits.target[:600]

    def accuracy(plane: np.ndarray[Any, Any]) -> float:
        train, test = slice(0, 400), slice(400, 600)
        classifier = KNeighborsClassifier(5).fit(plane[train], labels[train])
        return float(classifier.score(plane[test], labels[test]))

    plane = umap_plane(features)
    assert plane.shape == (600, 2)
    assert accuracy(plane) > accuracy(principal_plane(features)) + 0.1
    np.testing.assert_array_equal(plane, umap_plane(features))
    np.testing.assert_array_equal(umap_plane(features[:9]), principal_plane(features[:9]))
