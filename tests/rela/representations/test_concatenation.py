"""Combining priors, against NumPy on the whole matrix.

- columns standardised in float64, constant ones dropped and counted, every prior at variance 1, in order;
- parts of rows make no difference, and neither does a mean far from zero;
- what cannot be combined is refused;
- the identity of a combination comes back from JSON and depends on the order.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from rela.errors import DataError
from rela.models.preprocessing import preprocessing_for
from rela.priors import PriorIdentity
from rela.priors.prior import combined, identity_from_dict
from rela.representations.concatenation import fit_standardisation, write_combination
from rela.representations.matrix_file import ROWS_PER_PART, open_matrix
from rela.representations.projection import fit_projection

NUM_ROWS = 2 * ROWS_PER_PART + 77


def features(width: int, seed: int, mean: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return mean + rng.standard_normal((NUM_ROWS, width)) * np.geomspace(0.1, 10, width)


def combination(path: Path, *matrices: np.ndarray, dtype: str = "float32") -> np.ndarray:
    fitted = [fit_standardisation(matrix) for matrix in matrices]
    write_combination(path / "combined.h5", matrices, fitted, dtype, {"prior": "a+b"})
    return np.array(open_matrix(path / "combined.h5").values)


def expected(*matrices: np.ndarray) -> np.ndarray:
    blocks = []
    for matrix in matrices:
        whole = matrix.astype(np.float64)
        whole = whole[:, np.ptp(whole, axis=0) > 0]
        blocks.append((whole - whole.mean(axis=0)) / whole.std(axis=0) / whole.shape[1] ** 0.5)
    return np.hstack(blocks)


def test_it_equals_numpy_on_the_whole_matrix_in_the_given_order(tmp_path: Path):
    first, second, third = features(3, 0, 5.0), features(40, 1).astype(np.float16), features(7, 2)
    first[:, 1] = 0.1  # no sum of tenths is exact
    second[:, [0, 39]] = 7.0
    found = combination(tmp_path, first, second, third)
    assert found.shape == (NUM_ROWS, 2 + 38 + 7)
    np.testing.assert_allclose(found, expected(first, second, third), rtol=1e-5, atol=1e-6)
    turned = combination(tmp_path, third, first, second)
    np.testing.assert_array_equal(turned, found[:, [*range(40, 47), *range(40)]])
    assert [fit_standardisation(m).num_dropped for m in (first, second, third)] == [1, 2, 0]


def test_it_is_stored_as_float16_to_its_precision(tmp_path: Path):
    matrices = features(3, 0), features(9, 1)
    found = combination(tmp_path, *matrices, dtype="float16")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected(*matrices), rtol=1e-3, atol=1e-6)


def test_every_prior_has_variance_one(tmp_path: Path):
    found = combination(tmp_path, 100 * features(2, 0), features(200, 1)).astype(np.float64)
    assert found[:, :2].var(axis=0).sum() == pytest.approx(1, rel=1e-5)
    assert found[:, 2:].var(axis=0).sum() == pytest.approx(1, rel=1e-5)


def test_a_mean_far_from_zero_costs_no_precision():
    rows = features(5, 0)
    near, far = fit_standardisation(rows), fit_standardisation(rows + 1e6)
    np.testing.assert_allclose(far.scale, near.scale, rtol=1e-9)
    np.testing.assert_allclose(far.mean, near.mean + 1e6, rtol=1e-15)


def test_principal_components_merge_what_two_priors_share(tmp_path: Path):
    shared = features(4, 0)
    rotated = shared @ np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    found = combination(tmp_path, shared, rotated, dtype="float32")
    assert fit_projection(found, 8).width == 4


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, NUM_ROWS - 1])
def test_nan_and_inf_are_refused(wrong: float, row: int):
    rows = features(4, 0)
    rows[row, 2] = wrong
    with pytest.raises(DataError, match="NaN or Inf"):
        fit_standardisation(rows)


@pytest.mark.parametrize("rows", [np.full((NUM_ROWS, 3), 0.1), np.arange(3.0)[None]])
def test_constant_representations_are_refused(rows: np.ndarray):
    with pytest.raises(DataError, match="same representation"):
        fit_standardisation(rows)


def test_the_identity_comes_back_from_json_and_depends_on_the_order():
    a, b = (
        PriorIdentity(name, "resnet18", 32, digest * 64, preprocessing_for(32), 512)
        for name, digest in (("a", "0"), ("b", "1"))
    )
    both = combined([a, b])
    assert both.name == "a+b"
    assert identity_from_dict(json.loads(json.dumps(both.as_dict()))) == both
    assert identity_from_dict(json.loads(json.dumps(a.as_dict()))) == a == combined([a])
    keys = [json.dumps(p.key()) for p in (a, b, both, combined([b, a]))]
    assert len(set(keys)) == 4
