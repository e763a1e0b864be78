"""The probes of `rela eval` on features of many classes: on the CPU against scikit-learn, and for ImageNet.

Rows are class centres plus noise, in float16 like representations. ImageNet's minutes assume time in
proportion to the training rows and, for k-NN, to the validation rows.
"""

import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.speed.comparison import Comparison, Figure, compare
from rela.evaluation.knn import knn_accuracy
from rela.evaluation.logistic import logistic_probe
from rela.evaluation.protocols import LOGISTIC_PROTOCOL, KNNProtocol

_IMAGENET_ROWS, _IMAGENET_QUERIES = 1_281_167, 50_000
_KNN = KNNProtocol(20)


@dataclass(frozen=True)
class Sizes:
    """Rows of both splits, columns and classes."""

    rows: int = 20_000
    queries: int = 4_000
    columns: int = 512
    classes: int = 100


ON_A_GPU = Sizes(160_000, 12_500, 2048, 1000)
Data = tuple[NDArray[np.float16], Tensor, NDArray[np.float16], Tensor]


def run(rounds: int, scratch: Path) -> list[Comparison | Figure]:
    if torch.cuda.is_available():
        return on_a_gpu(ON_A_GPU, "cuda")
    return against_scikit_learn(Sizes(), rounds)


def on_a_gpu(sizes: Sizes, device: str) -> list[Comparison | Figure]:
    """Seconds, accuracies, and what they come to for ImageNet; a CPU's with `device` "cpu"."""
    data = synthetic(sizes)
    found: list[Comparison | Figure] = []
    share = _IMAGENET_ROWS / sizes.rows
    for name, probe, times in (
        ("20-NN", knn, share * _IMAGENET_QUERIES / sizes.queries),
        ("linear", linear, share),
    ):
        start = time.perf_counter()
        accuracy = probe(data, sizes.classes, device)
        seconds = time.perf_counter() - start
        what = f"{name} of {sizes.rows:,} × {sizes.columns:,}, {sizes.classes:,} classes"
        found += [
            Figure(f"{what}, {sizes.queries:,} queries", "s", [seconds]),
            Figure(f"{what}: accuracy", "%", [100 * accuracy]),
            Figure(f"{name} of ImageNet's {_IMAGENET_ROWS:,} rows", "min", [seconds * times / 60]),
        ]
    return found


def against_scikit_learn(sizes: Sizes, rounds: int) -> list[Comparison | Figure]:
    """Rates on the CPU, and both accuracies."""
    data = synthetic(sizes)
    found: list[Comparison | Figure] = []
    for name, ours, theirs in (("20-NN", knn, their_knn), ("linear", linear, their_linear)):
        accuracies: dict[str, list[float]] = {"rela": [], "scikit-learn": []}

        def measured(side: str, probe: object, accuracies: dict[str, list[float]]) -> float:
            start = time.perf_counter()
            accuracy = probe(data, sizes.classes, "cpu")  # type: ignore[operator]
            accuracies[side].append(100 * accuracy)
            return sizes.rows / (time.perf_counter() - start)

        what = f"{name} of {sizes.rows:,} × {sizes.columns:,}, {sizes.classes:,} classes"
        sides = {"rela": ours, "scikit-learn": theirs}
        runs = {side: partial(measured, side, probe, accuracies) for side, probe in sides.items()}
        found.append(compare(what, "rows/s", runs, rounds, {"scikit-learn": 3}))
        found += [Figure(f"{name}: accuracy of {s}", "%", a) for s, a in accuracies.items()]
    return found


def synthetic(sizes: Sizes) -> Data:
    """Features and labels of both splits."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((sizes.classes, sizes.columns), np.float32)
    noise = (sizes.columns / 20) ** 0.5
    parts: list[NDArray[np.float16] | Tensor] = []
    for count in (sizes.rows, sizes.queries):
        labels = random.integers(0, sizes.classes, count)
        features = np.empty((count, sizes.columns), np.float16)
        for start in range(0, count, 16384):
            some = centers[labels[start : start + 16384]]
            features[start : start + 16384] = some + noise * random.standard_normal(
                some.shape, np.float32
            )
        parts += [features, torch.from_numpy(labels)]
    return tuple(parts)  # type: ignore[return-value]


def knn(data: Data, num_classes: int, device: str) -> float:
    return knn_accuracy(*data, num_classes, _KNN, device)


def linear(data: Data, num_classes: int, device: str) -> float:
    found = logistic_probe(*data, num_classes, LOGISTIC_PROTOCOL, device=device)
    return float(found["top1"])


def their_knn(data: Data, num_classes: int, device: str) -> float:
    """The same neighbours and weights."""
    model = KNeighborsClassifier(
        _KNN.k, metric="cosine", algorithm="brute",
        weights=lambda distances: np.exp((1 - distances) / _KNN.temperature),
    )  # fmt: skip
    model.fit(data[0].astype(np.float32), data[1].numpy())
    return float(model.score(data[2].astype(np.float32), data[3].numpy()))


def their_linear(data: Data, num_classes: int, device: str) -> float:
    """The same objective and penalties: chosen on a tenth of the rows, then fitted to all."""
    rows, labels = data[0].astype(np.float32), data[1].numpy()
    scaler = StandardScaler().fit(rows)
    rows, queries = scaler.transform(rows), scaler.transform(data[2].astype(np.float32))
    held = np.arange(len(rows)) % round(1 / LOGISTIC_PROTOCOL.held_out) == 0

    def fit(penalty: float, some: NDArray[np.bool_]) -> LogisticRegression:
        count = int(some.sum())
        model = LogisticRegression(
            C=1 / (penalty * count), max_iter=LOGISTIC_PROTOCOL.max_iterations
        )
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            return model.fit(rows[some], labels[some])

    scores = {
        penalty: fit(penalty, ~held).score(rows[held], labels[held])
        for penalty in LOGISTIC_PROTOCOL.penalties
    }
    best = max(scores, key=lambda penalty: scores[penalty])
    return float(fit(best, np.ones(len(rows), bool)).score(queries, data[3].numpy()))
