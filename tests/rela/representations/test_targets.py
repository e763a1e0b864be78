"""Target files (rela.representations.targets), read by plain h5py and computed by scikit-learn.

- the tensor that training sees equals what h5py reads, and scikit-learn's whitened PCA;
- another number of images, NaN and Inf are refused on the way in and on the way out.
"""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from rela.errors import DataError
from rela.representations.matrix_file import ROWS_PER_PART, write_matrix
from rela.representations.projection import fit_projection
from rela.representations.targets import open_targets, write_targets

NUM_IMAGES = ROWS_PER_PART + 77


@pytest.fixture
def representations() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((NUM_IMAGES, 6)) * [8, 5, 3, 2, 1, 0.5] + 4).astype(np.float16)


@pytest.fixture
def written(tmp_path: Path, representations: np.ndarray) -> Path:
    path = tmp_path / "targets.h5"
    write_targets(path, representations, fit_projection(representations, 4), {"width": 4})
    return path


def test_the_tensor_equals_what_plain_h5py_reads(written: Path):
    targets = open_targets(written, NUM_IMAGES).values
    with h5py.File(written) as file:
        expected, attributes = file["representations"][()], dict(file.attrs)
    assert targets.dtype == torch.float16
    assert targets.shape == (NUM_IMAGES, 4)
    assert torch.equal(targets, torch.from_numpy(expected))
    assert attributes == {"width": 4}


def test_the_targets_are_whitened_principal_components(written: Path, representations: np.ndarray):
    rows = representations.astype(np.float64)
    expected = PCA(4, whiten=True, svd_solver="full").fit_transform(rows)
    found = open_targets(written, NUM_IMAGES).values.numpy().astype(np.float64)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, rtol=1e-3, atol=1e-4)  # stored as float16
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.var(axis=0, ddof=1), 1, atol=1e-3)


@pytest.mark.parametrize("num_images", [NUM_IMAGES - 1, NUM_IMAGES + 1])
def test_targets_of_another_number_of_images_are_refused(written: Path, num_images: int):
    with pytest.raises(DataError, match=rf"{NUM_IMAGES} targets.*needs {num_images}"):
        open_targets(written, num_images)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, NUM_IMAGES - 1])
def test_nan_and_inf_are_not_written(
    tmp_path: Path, representations: np.ndarray, wrong: float, row: int
):
    projection = fit_projection(representations, 4)
    representations[row, 1] = wrong
    with pytest.raises(DataError, match="NaN or Inf"):
        write_targets(tmp_path / "targets.h5", representations, projection, {})


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, NUM_IMAGES - 1])
def test_nan_and_inf_are_not_read(tmp_path: Path, wrong: float, row: int):
    values = np.zeros((NUM_IMAGES, 4), np.float16)
    values[row, 3] = wrong
    parts = (values[i : i + ROWS_PER_PART] for i in range(0, NUM_IMAGES, ROWS_PER_PART))
    write_matrix(tmp_path / "targets.h5", parts, values.shape, "float16", {})
    with pytest.raises(DataError, match="NaN or Inf"):
        open_targets(tmp_path / "targets.h5", NUM_IMAGES)


def test_changed_targets_are_refused(written: Path):
    with h5py.File(written, "r+") as file:
        file["representations"][5, 2] += 1
    with pytest.raises(DataError, match="changed"):
        open_targets(written, NUM_IMAGES)
