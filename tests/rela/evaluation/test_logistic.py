"""The default linear probe (rela.evaluation.logistic) against scikit-learn in float64.

- the same objective, coefficients and accuracy as LogisticRegression on standardised features;
- features times any constant, one for all or one for each column, give the same accuracy;
- the penalty is chosen on held-out training images, alike in all classes; validation images have no say;
- from a file in blocks as from memory; constant columns, missing classes, one class, NaN, labels of −1.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from rela.data import memory
from rela.errors import DataError
from rela.evaluation import feature_rows, logistic
from rela.evaluation.feature_rows import standardisation
from rela.evaluation.logistic import _Problem, held_out_rows, logistic_probe
from rela.evaluation.protocols import LOGISTIC_PROTOCOL

Matrix = NDArray[np.float64]
CPU = torch.device("cpu")
NUM_CLASSES = 4


def data(seed: int = 0, num_train: int = 400, num_val: int = 600) -> list[Tensor]:
    """Overlapping classes in 12 correlated dimensions: train features, labels, val features, labels."""
    rng = np.random.default_rng(seed)
    centers = 0.8 * rng.standard_normal((NUM_CLASSES, 12))
    mixing = rng.standard_normal((12, 12)) + 2 * np.eye(12)
    found = []
    for count in (num_train, num_val):
        labels = rng.integers(0, NUM_CLASSES, count)
        features = (centers[labels] + rng.standard_normal((count, 12))) @ mixing + 3
        found += [torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)]
    return found


def reference(x: Matrix, y: Any, penalty: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / (penalty * len(y)), tol=1e-10, max_iter=10_000)
    return model.fit(x, y)


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_the_fit_is_that_of_scikit_learn(penalty: float):
    """Coefficients within 1e-3 of the largest, the objective within 1e-7, on the same standardised rows."""
    x, y, x_val, y_val = data()
    scaler = StandardScaler().fit(x.double().numpy())
    z = scaler.transform(x.double().numpy())
    expected = reference(z, y.numpy(), penalty)
    problem = _Problem(x, y.numpy(), NUM_CLASSES, standardisation(x, CPU), CPU)
    found = problem.fit(problem.labelled, penalty, 1e-7, 1000).numpy()
    found[:, -1] -= found[:, -1].mean()  # a constant added to all biases changes nothing
    intercept = expected.intercept_ - expected.intercept_.mean()
    wanted = np.hstack([expected.coef_, intercept[:, None]])
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())

    def objective(matrix: Matrix) -> float:
        scores = z @ matrix[:, :-1].T + matrix[:, -1]
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        return float(log_loss(y.numpy(), shares) + penalty / 2 * (matrix[:, :-1] ** 2).sum())

    assert objective(found) == pytest.approx(objective(wanted), abs=1e-7)
    probe = logistic_probe(
        x, y, x_val, y_val, NUM_CLASSES, replace(LOGISTIC_PROTOCOL, penalties=(penalty,))
    )
    score = expected.score(scaler.transform(x_val.double().numpy()), y_val.numpy())
    assert 0.5 < score < 0.98
    assert probe["top1"] == pytest.approx(score, abs=1e-6)


def test_gradient_and_loss_are_those_of_autograd_in_float64():
    x, y, *_ = data(num_train=50)
    problem = _Problem(x, y.numpy(), NUM_CLASSES, standardisation(x, CPU), CPU)
    weights = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = torch.randn(
        NUM_CLASSES, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()
    z = (x.double() - x.double().mean(0)) / x.double().std(0, correction=0)
    scores = z @ parameters[:, :-1].T + parameters[:, -1]
    losses = torch.nn.functional.cross_entropy(scores, y, reduction="none")
    expected = (losses * weights).sum() / weights.sum()
    expected.backward()
    loss, gradient = problem.cross_entropy(parameters.detach(), weights)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, parameters.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("constant", [1e-3, 0.03, 10.0, 1e3, "columns"])
def test_the_scale_of_features_changes_nothing(constant: Any):
    x, y, x_val, y_val = data()
    plain = logistic_probe(x, y, x_val, y_val, NUM_CLASSES, LOGISTIC_PROTOCOL)
    if constant == "columns":
        constant = torch.logspace(-3, 3, 12)[torch.randperm(12)]
    found = logistic_probe(x * constant, y, x_val * constant, y_val, NUM_CLASSES, LOGISTIC_PROTOCOL)
    assert found["top1"] == pytest.approx(plain["top1"], abs=0.003)
    assert found["penalty"] == plain["penalty"]


def test_the_penalty_is_the_best_on_held_out_training_images():
    """As by scikit-learn over the whole grid; few images in many dimensions want a strong one."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    x = (rng.standard_normal((3, 40))[y] * 0.5 + rng.standard_normal((90, 40))).astype(np.float32)
    held = held_out_rows(y, 0.1, 0)
    kept = np.setdiff1d(np.arange(90), held)
    z = StandardScaler().fit_transform(x.astype(np.float64))
    grid = LOGISTIC_PROTOCOL.penalties
    losses = [
        log_loss(y[held], reference(z[kept], y[kept], p).predict_proba(z[held])) for p in grid
    ]
    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    found = [
        logistic_probe(features, labels, val, labels[:9], 3, LOGISTIC_PROTOCOL)
        for val in (features[:9], -features[:9])  # validation images have no say
    ]
    assert [f["penalty"] for f in found] == [grid[int(np.argmin(losses))]] * 2
    assert found[0]["num_held_out"] == len(held)


def test_held_out_rows_are_a_tenth_alike_in_all_classes():
    classes = np.repeat([0, 1, 2, 3, -1], [1000, 300, 1, 40, 100])
    classes = classes[np.random.default_rng(0).permutation(len(classes))]
    rows = held_out_rows(classes, 0.1, seed=0)
    counts = np.bincount(classes[rows], minlength=4)
    assert np.abs(counts - [100, 30, 0, 4]).max() <= 1
    assert len(np.unique(rows)) == len(rows) and (classes[rows] >= 0).all()
    assert np.array_equal(rows, held_out_rows(classes, 0.1, seed=0))
    others = held_out_rows(classes, 0.1, seed=1)
    assert len(np.intersect1d(rows, others)) < len(rows) / 2
    singles = np.arange(30)  # each class keeps its only row
    assert len(held_out_rows(singles, 0.1, 0)) == 0
    assert len(held_out_rows(np.zeros(0, np.int64), 0.1, 0)) == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_on_disk_are_read_in_blocks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: Any
):
    x, y, x_val, y_val = data()
    np.save(tmp_path / "x.npy", x.numpy().astype(dtype))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    x = torch.from_numpy(np.array(mapped, np.float32))
    expected = logistic_probe(x, y, x_val, y_val, NUM_CLASSES, LOGISTIC_PROTOCOL)
    largest = []
    plain = memory.blocks

    def watched(features: Any, num_rows: int) -> Any:
        for start, block in plain(features, num_rows):
            largest.append(len(block))
            yield start, block

    monkeypatch.setattr(memory, "blocks", watched)
    monkeypatch.setattr(feature_rows, "_BLOCK_NUMBERS", 12 * 37)
    monkeypatch.setattr(logistic, "_KEPT_BYTES", 0)
    found = logistic_probe(mapped, y, x_val, y_val, NUM_CLASSES, LOGISTIC_PROTOCOL)
    assert max(largest) == 37 and len(largest) > 10 * found["num_passes"]
    assert found["top1"] == pytest.approx(expected["top1"], abs=0.003)
    assert found["penalty"] == expected["penalty"]


def test_constant_columns_are_left_out():
    x, y, x_val, y_val = data()
    plain = logistic_probe(x, y, x_val, y_val, NUM_CLASSES, LOGISTIC_PROTOCOL)
    for value in (0.0, 7.1, 1e6):
        columns = [torch.full((len(part), 2), value) for part in (x, x_val)]
        wider = [torch.cat(pair, dim=1) for pair in zip((x, x_val), columns, strict=True)]
        wider[1][:, -1] += 5  # even where they vary in validation
        found = logistic_probe(wider[0], y, wider[1], y_val, NUM_CLASSES, LOGISTIC_PROTOCOL)
        assert found["top1"] == pytest.approx(plain["top1"], abs=0.003)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("split", ["training", "validation"])
def test_numbers_that_are_not_finite_are_refused(bad: float, split: str):
    parts = data(num_train=40, num_val=40)
    parts[0 if split == "training" else 2][7, 3] = bad
    with pytest.raises(DataError, match=f"{split} images contain NaN or infinite"):
        logistic_probe(*parts, NUM_CLASSES, LOGISTIC_PROTOCOL)


def test_classes_without_training_images_are_never_predicted():
    x, y, x_val, y_val = data()
    shifted = torch.where(y == 0, -1, y)  # the first class has no labels
    found = logistic_probe(x, shifted, x_val, y_val, 7, LOGISTIC_PROTOCOL)
    known = y_val > 0
    kept = y > 0
    alone = logistic_probe(x[kept], y[kept], x_val[known], y_val[known], 7, LOGISTIC_PROTOCOL)
    assert found["top1"] == pytest.approx(alone["top1"] * float(known.float().mean()), abs=0.03)
    assert found["top5"] == pytest.approx(float(known.float().mean()))  # there are only three


def test_a_single_class_is_predicted_always():
    x, _, x_val, y_val = data(num_train=30)
    found = logistic_probe(x, torch.full((30,), 2), x_val, y_val, 4, LOGISTIC_PROTOCOL)
    assert found["top1"] == pytest.approx(float((y_val == 2).float().mean()))


@pytest.mark.parametrize("num_classes", [2, 5, 6])
def test_top5_is_reported_from_six_classes_on(num_classes: int):
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % num_classes
    found = logistic_probe(x, y, x, y, num_classes, LOGISTIC_PROTOCOL)
    assert ("top5" in found) == (num_classes > 5)
    if num_classes > 5:
        assert found["top1"] < found["top5"] < 1


def test_the_result_depends_on_the_arguments_alone():
    parts = data(num_train=100)
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    first = logistic_probe(*parts, NUM_CLASSES, LOGISTIC_PROTOCOL, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert first == logistic_probe(*parts, NUM_CLASSES, LOGISTIC_PROTOCOL, seed=1)
