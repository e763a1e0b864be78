"""PCA and standardisation (rela.representations.projection) against float64 SVD and scikit-learn.

- components, variances and targets equal those of both, up to the sign, which follows a rule;
- fewer rows than columns, columns that don't vary, more rows than one block, a far-off mean;
- targets have zero mean and unit variance; rows that say nothing or are not numbers are refused.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from rela.errors import DataError
from rela.representations.projection import _sums, _sums_on, fit_projection


def correlated(num_rows: int, num_columns: int, seed: int = 0) -> NDArray[np.float64]:
    """Rows with well separated principal variances and a mean that is not zero."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((num_columns, num_columns)))[0]
    spread = 1.5 ** -np.arange(num_columns)
    return rng.standard_normal((num_rows, num_columns)) * spread @ rotation + rng.normal(
        0, 3, num_columns
    )


def same_up_to_sign(found: NDArray, expected: NDArray) -> None:
    """Columns of [N, d], each compared with whichever sign it has."""
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_it_is_the_singular_value_decomposition_in_float64(dtype: str):
    rows = correlated(500, 12).astype(dtype)
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    projection = fit_projection(rows, 8)
    np.testing.assert_allclose(projection.eigenvalues, singular**2 / 499, rtol=1e-9, atol=1e-12)
    same_up_to_sign(projection.components.T, right[:8].T)
    same_up_to_sign(projection.apply(rows), left[:, :8] * np.sqrt(499))


def test_on_another_device_the_sums_are_the_same():
    rows = correlated(9000, 12).astype("float16")
    shift = rows[0].astype(np.float64)
    differences = rows.astype(np.float64) - shift
    for total, products in (_sums(rows, shift), _sums_on("cpu", rows, shift)):
        np.testing.assert_allclose(total, differences.sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(products, differences.T @ differences, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_targets_are_exact_to_float32(dtype: str):
    rows = (correlated(700, 10) + 300).astype(dtype)
    projection = fit_projection(rows, 6)
    found, expected = projection.standardised(rows), projection.apply(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_it_is_whitened_pca_of_scikit_learn():
    rows, unseen = correlated(400, 10), correlated(50, 10, seed=1)
    reference = PCA(n_components=6, whiten=True, svd_solver="full").fit(rows)
    projection = fit_projection(rows, 6)
    same_up_to_sign(projection.apply(rows), reference.transform(rows))
    same_up_to_sign(projection.apply(unseen), reference.transform(unseen))
    expected = reference.explained_variance_ratio_.sum()
    assert projection.explained_variance == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("share", [0.7, 0.9, 0.99])
def test_a_share_of_the_variance_keeps_what_scikit_learn_keeps(share: float):
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((2000, 64)) * 1.03 ** -np.arange(64)
    expected = PCA(n_components=share, svd_solver="full").fit(rows).n_components_
    assert 16 < expected < 64
    assert fit_projection(rows, 64, variance_share=share).width == expected
    assert fit_projection(rows, expected - 1, variance_share=share).width == expected - 1


def test_a_dominant_direction_does_not_hide_the_others():
    rows = correlated(500, 40)
    rows[:, 0] *= 1000
    projection = fit_projection(rows, 40, floor=1e-30, variance_share=0.9)
    assert projection.eigenvalues[0] > 0.99 * projection.eigenvalues.sum()
    assert projection.width == 16


def test_the_largest_entry_of_every_component_is_positive():
    rows = correlated(300, 9)
    for data in (rows, -rows, rows[::-1]):
        components = fit_projection(data, 9).components
        assert (components.max(axis=1) > -components.min(axis=1)).all()


def test_mirrored_rows_have_the_same_components():
    rows = correlated(300, 9)
    plain, mirrored = fit_projection(rows, 5), fit_projection(-rows, 5)
    np.testing.assert_allclose(plain.components, mirrored.components, atol=1e-9)


def test_targets_have_zero_mean_and_unit_variance():
    rows = correlated(700, 10)
    targets = fit_projection(rows, 10).apply(rows)
    np.testing.assert_allclose(targets.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(targets.T), np.eye(10), atol=1e-8)


def test_a_width_beyond_the_columns_is_all_columns():
    projection = fit_projection(correlated(100, 6), 64)
    assert (projection.width, projection.num_dropped) == (6, 0)


def test_with_fewer_rows_than_columns_only_real_directions_are_kept():
    rows = np.random.default_rng(0).standard_normal((20, 50))
    projection = fit_projection(rows, 50)
    assert (projection.width, projection.num_dropped) == (19, 31)
    np.testing.assert_allclose(np.cov(projection.apply(rows).T), np.eye(19), atol=1e-8)


def test_constant_columns_are_dropped():
    rows = correlated(200, 6)
    with_constants = np.insert(rows, [0, 3], [7.25, -1.5], axis=1)
    projection, expected = fit_projection(with_constants, 8), fit_projection(rows, 6)
    assert (projection.width, projection.num_dropped) == (6, 2)
    same_up_to_sign(projection.apply(with_constants), expected.apply(rows))
    np.testing.assert_allclose(projection.components[:, [0, 4]], 0, atol=1e-9)


def test_directions_of_rounding_noise_are_dropped_and_counted():
    rows = correlated(300, 4)
    noisy = np.hstack([rows, 1e-5 * np.random.default_rng(1).standard_normal((300, 3))])
    projection = fit_projection(noisy, 7)
    assert (projection.width, projection.num_dropped) == (4, 3)


@pytest.mark.parametrize("num_rows", [8191, 8192, 8193, 20_000])
def test_the_result_does_not_depend_on_blocks_of_rows(num_rows: int):
    rows = correlated(num_rows, 5)
    rows = rows[rows[:, 0].argsort()]  # the first block is unlike the others
    centred = rows - rows.mean(axis=0)
    left = np.linalg.svd(centred, full_matrices=False)[0]
    same_up_to_sign(fit_projection(rows, 5).apply(rows), left * np.sqrt(num_rows - 1))


def test_a_mean_far_from_zero_costs_no_precision():
    rows = correlated(500, 6)
    near, far = fit_projection(rows, 6).apply(rows), fit_projection(rows + 1e4, 6).apply(rows + 1e4)
    np.testing.assert_allclose(near, far, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e4 / 3])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_representations_that_are_all_the_same_are_refused(value: float, dtype: str):
    with pytest.raises(DataError, match="same representation"):
        fit_projection(np.full((1000, 4), value, dtype), 4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [3, 8500])
def test_nan_and_inf_are_refused(wrong: float, row: int):
    rows = correlated(9000, 4).astype(np.float16)
    rows[row, 2] = wrong
    with pytest.raises(DataError, match="NaN or Inf"):
        fit_projection(rows, 4)


def test_one_row_is_too_few():
    with pytest.raises(DataError, match="at least 2"):
        fit_projection(np.ones((1, 4)), 4)
