"""Probes (rela.evaluation) against scikit-learn.

- k-nearest neighbours: the same accuracy as KNeighborsClassifier with weights exp(cosine / T);
- its memory does not grow with classes and neighbours, nor with rows in a file;
- the reference's linear probe: separable data is separated, overlapping data as by LogisticRegression;
- an Adam run equals a loop in numpy; results depend only on the seed; top-5 from 6 classes on;
- what is reported with them: the actual k and batch, and the last epochs against shorter trainings.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from rela.errors import DataError
from rela.evaluation import feature_rows
from rela.evaluation.knn import knn_accuracy
from rela.evaluation.linear import linear_probe
from rela.evaluation.protocols import (
    KNN_PROTOCOLS,
    REFERENCE_PROTOCOL,
    KNNProtocol,
)


def blobs(
    num_classes: int, spread: float, num_train: int = 600, num_val: int = 300, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gaussian classes in 16 dimensions: train features and labels, val features and labels."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((num_classes, 16))
    out = []
    for count in (num_train, num_val):
        labels = rng.integers(0, num_classes, count)
        features = centers[labels] + spread * rng.standard_normal((count, 16))
        out += [torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)]
    return out[0], out[1], out[2], out[3]


# k-nearest neighbours


@pytest.mark.parametrize("protocol", [*KNN_PROTOCOLS, KNNProtocol(1), KNNProtocol(7, 0.5)])
@pytest.mark.parametrize("num_val", [1, 300, 700])
def test_neighbours_vote_as_in_scikit_learn(protocol: KNNProtocol, num_val: int):
    data = blobs(8, 1.5, num_val=num_val)
    x, y, x_val, y_val = (part.numpy() for part in data)
    x, x_val = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, x_val))
    reference = KNeighborsClassifier(
        protocol.k,  # for unit vectors the cosine is 1 − distance² / 2
        weights=lambda distance: np.exp((1 - distance**2 / 2) / protocol.temperature),
        algorithm="brute",
    ).fit(x, y)
    found = knn_accuracy(*data, 8, protocol)
    assert found == pytest.approx(reference.score(x_val, y_val), abs=1e-9)


def test_more_neighbours_than_rows_are_all_rows():
    data = blobs(3, 1.0, num_train=12)
    assert knn_accuracy(*data, 3, KNNProtocol(200)) == knn_accuracy(*data, 3, KNNProtocol(12))


@pytest.mark.parametrize("k", [1, 20, 200])
@pytest.mark.parametrize("on_disk", [False, True])
def test_neighbours_are_found_in_blocks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, k: int, on_disk: bool
):
    """Blocks of a few rows, also of a file: as numpy votes with all rows at once in float64."""
    monkeypatch.setattr(feature_rows, "_BLOCK_NUMBERS", 1600)
    x, y, x_val, y_val = blobs(30, 2.0, num_train=450, num_val=333)
    a, b = (f.double().numpy() for f in (x, x_val))
    a, b = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (a, b))
    similarities = b @ a.T
    nearest = np.argsort(-similarities, axis=1)[:, :k]
    votes = np.zeros((len(b), 30))
    for row, places in enumerate(nearest):
        np.add.at(votes[row], y.numpy()[places], np.exp(similarities[row, places] / 0.07))
    expected = float((votes.argmax(1) == y_val.numpy()).mean())
    train: Any = x
    if on_disk:
        np.save(tmp_path / "x.npy", x.numpy())
        train = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert knn_accuracy(train, y, x_val, y_val, 30, KNNProtocol(k)) == pytest.approx(expected)


def test_memory_does_not_grow_with_classes_and_neighbours():
    """21,841 classes and 200 neighbours: the counts alone would take 8 GiB as one array."""
    code = """
import torch
from rela.errors import DataError
from rela.evaluation import feature_rows
from rela.evaluation.knn import knn_accuracy
from rela.evaluation.protocols import KNNProtocol
torch.set_num_threads(1)
x = torch.randn(21_841, 16, generator=torch.Generator().manual_seed(0))
labels = torch.arange(21_841)
accuracy = knn_accuracy(x, labels, x[:512], labels[:512], 21_841, KNNProtocol(200))
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(accuracy, peak)  # ru_maxrss would be that of the parent, if it is larger
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    accuracy, kilobytes = result.stdout.split()
    assert float(accuracy) == 1.0  # each image is its own nearest neighbour
    assert int(kilobytes) < 1_500_000


@pytest.mark.parametrize("split", ["training", "validation"])
def test_neighbours_of_numbers_that_are_not_finite_are_refused(split: str):
    parts = blobs(3, 1.0, num_train=30, num_val=30)
    parts[0 if split == "training" else 2][4, 5] = float("nan")
    with pytest.raises(DataError, match=f"{split} images contain NaN"):
        knn_accuracy(*parts, 3, KNNProtocol(5))


# The reference's linear probe


def test_separable_classes_are_separated():
    data = blobs(4, 0.05)
    assert linear_probe(*data, 4, replace(REFERENCE_PROTOCOL, lr=0.01))["top1"] == 1.0


def test_overlapping_classes_come_out_as_in_logistic_regression():
    data = blobs(6, 1.2, num_train=2000, num_val=2000)
    x, y, x_val, y_val = (part.numpy() for part in data)
    reference = LogisticRegression(C=1e6, max_iter=2000).fit(x, y).score(x_val, y_val)
    assert 0.5 < reference < 0.95
    found = linear_probe(*data, 6, replace(REFERENCE_PROTOCOL, lr=3e-3, epochs=30))["top1"]
    assert found == pytest.approx(reference, abs=0.01)


def test_an_adam_probe_equals_a_loop_in_numpy():
    x, y, x_val, y_val = blobs(5, 1.5)
    protocol = replace(REFERENCE_PROTOCOL, epochs=40, lr=0.01, batch_size=len(y))
    found = linear_probe(x, y, x_val, y_val, 5, protocol, seed=3)["top1"]

    with torch.random.fork_rng():
        torch.manual_seed(3)
        layer = nn.Linear(16, 5)
    bias, weight = layer.bias.detach().numpy(), layer.weight.detach().numpy()
    parameters = np.hstack([weight, bias[:, None]]).astype(np.float64)
    inputs = np.hstack([x.numpy(), np.ones((len(x), 1))])
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)
    for step in range(1, 41):
        logits = inputs @ parameters.T
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        gradient = (shares - np.eye(5)[y]).T @ inputs / len(y)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        update = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        parameters -= 0.01 * update
    val_inputs = np.hstack([x_val.numpy(), np.ones((len(x_val), 1))])
    expected = ((val_inputs @ parameters.T).argmax(axis=1) == y_val.numpy()).mean()
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_result_depends_on_the_seed_alone():
    data, short = blobs(6, 2.0), replace(REFERENCE_PROTOCOL, epochs=1)
    results = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        results.append([linear_probe(*data, 6, short, seed)["top1"] for seed in range(5)])
        assert torch.initial_seed() == global_seed
    assert results[0] == results[1]
    assert len(set(results[0])) > 1


def test_a_probe_leaves_the_global_random_state_alone():
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    linear_probe(*blobs(3, 1.0), 3, replace(REFERENCE_PROTOCOL, epochs=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("num_classes", [2, 5, 6, 9])
def test_top5_is_reported_from_six_classes_on(num_classes: int):
    data = blobs(num_classes, 1.0)
    found = linear_probe(*data, num_classes, replace(REFERENCE_PROTOCOL, epochs=1))
    assert ("top5" in found) == (num_classes > 5)


def test_the_mean_over_the_last_epochs_is_that_of_shorter_trainings():
    data = blobs(6, 2.0)
    short = replace(REFERENCE_PROTOCOL, lr=0.05)  # a rate at which epochs differ
    found = linear_probe(*data, 6, replace(short, epochs=7))
    single = [linear_probe(*data, 6, replace(short, epochs=n))["top1"] for n in (5, 6, 7)]
    assert len(set(single)) > 1
    assert found["top1"] == single[-1]
    assert found["top1_mean_last_3_epochs"] == pytest.approx(np.mean(single))
    assert found["top1_std_last_3_epochs"] == pytest.approx(np.std(single, ddof=1))


@pytest.mark.parametrize(
    ("num_train", "expected"),
    [(100, 100), (128, 128), (1_000_000, 128), (1_000_001, 1024), (14_000_000, 1024)],
)
def test_the_reference_takes_larger_batches_from_a_million_images(num_train: int, expected: int):
    batch_size = REFERENCE_PROTOCOL.batch_size_for(num_train)
    assert batch_size == expected
    words = REFERENCE_PROTOCOL.describe({"batch_size": batch_size})
    assert f"batch {expected}" in words
    assert ("cut from 128" in words) == (num_train < 128)


@pytest.mark.parametrize("num_train", [12, 20, 5000])
def test_the_real_number_of_neighbours_is_told(num_train: int):
    protocol = KNNProtocol(20)
    words = protocol.describe({"k": protocol.neighbours(num_train)})
    assert words.startswith(
        "k = 12 (all train images; 20 asked for)" if num_train == 12 else "k = 20,"
    )


def test_top5_counts_the_five_best_classes():
    x, y, x_val, _ = blobs(6, 0.5)
    every_label = torch.arange(6)
    same_image = x_val[:1].expand(6, -1)  # each of the six classes once: one top, five in the top 5
    found = linear_probe(x, y, same_image, every_label, 6, REFERENCE_PROTOCOL)
    assert found["top1"] == pytest.approx(1 / 6)
    assert found["top5"] == pytest.approx(5 / 6)
