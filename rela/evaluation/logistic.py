"""Linear accuracy that does not depend on the scale of features: logistic regression to convergence.

For standardised features z of N training images, weights W and biases b of C classes,

    L(W, b) = 1/N Σ −log softmax(W z + b)[label] + λ/2 ‖W‖²

is minimised by L-BFGS with a line search (Liu and Nocedal, 1989; scikit-learn's LogisticRegression with
C = 1 / (λN)). λ is the one with the smallest cross-entropy on held-out training images.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from rela.evaluation.feature_rows import (
    Features,
    Standardisation,
    block_rows,
    blocks,
    check_finite,
    standardisation,
)
from rela.evaluation.protocols import LogisticProtocol

_KEPT_BYTES = 2 << 30  # of standardised features; on a GPU half of what is free
_HISTORY_BYTES = 1 << 30  # of L-BFGS's earlier steps
_LONGEST_HISTORY, _SHORTEST_HISTORY = 20, 3


def logistic_probe(
    train_features: Features,
    train_labels: Tensor,
    val_features: Features,
    val_labels: Tensor,
    num_classes: int,
    protocol: LogisticProtocol,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Fit and return validation accuracies in [0, 1]: `top1`, and with 6 or more classes `top5`.

    Features [N, D] may be memory-mapped; they are read in blocks, and kept on the device where they are
    small enough. Labels int64 [N], −1 without a class. Classes without training images are never predicted.
    `seed` draws the held-out images. Also `penalty` λ, `num_held_out`, and `num_passes` over the training
    images. Raises DataError for features that are not finite.
    """
    device = torch.device(device)
    scaling = standardisation(train_features, device)
    labels = train_labels.cpu().numpy()
    present, codes = np.unique(labels[labels >= 0], return_inverse=True)
    classes = np.full(len(labels), -1, np.int64)
    classes[labels >= 0] = codes
    problem = _Problem(train_features, classes, len(present), scaling, device)
    held_out = held_out_rows(classes, protocol.held_out, seed)
    penalty = _choose_penalty(problem, held_out, protocol)
    parameters = problem.fit(problem.labelled, penalty, protocol.tolerance, protocol.max_iterations)
    found = _accuracies(parameters, val_features, val_labels, present, num_classes, scaling)
    return {
        **found,
        "penalty": penalty,
        "num_held_out": len(held_out),
        "num_passes": problem.num_passes,
    }


def held_out_rows(classes: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """About `share` of the labelled rows, alike in all classes, int64; each class keeps a row at least.

    Every n-th row in the order of classes, rows of a class in random order and without its first.
    """
    order = np.random.default_rng(seed).permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    order = order[classes[order] >= 0]
    is_first = np.append(True, np.diff(classes[order]) > 0)[: len(order)]
    every = max(1, round(1 / share))
    return np.sort(order[~is_first][every // 2 :: every])


class _Problem:
    """The objective of one set of training images, for any weights of the images and any penalty."""

    def __init__(
        self,
        features: Features,
        classes: NDArray[np.int64],
        num_classes: int,
        scaling: Standardisation,
        device: torch.device,
    ) -> None:
        self.num_passes = 0
        self.shape = num_classes, features.shape[1] + 1
        self.classes = torch.from_numpy(classes).to(device)
        self.labelled = (self.classes >= 0).double()
        self._features, self._scaling, self._device = features, scaling, device
        self._rows = block_rows(max(num_classes, features.shape[1]))
        self._kept: list[tuple[slice, Tensor]] | None = None
        if 4 * len(features) * features.shape[1] <= _kept_bytes(device):
            self._kept = list(self._standardised())

    def _standardised(self) -> Iterator[tuple[slice, Tensor]]:
        for rows, block in blocks(self._features, self._device, self._rows):
            yield rows, self._scaling(block)

    @torch.no_grad()
    def cross_entropy(self, parameters: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean over the rows, and its gradient [C, D + 1]; sums of blocks in float64."""
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        gradient = torch.zeros(self.shape, dtype=torch.float64, device=self._device)
        matrix, bias = parameters[:, :-1].float(), parameters[:, -1].float()
        self.num_passes += 1
        for rows, block in self._kept or self._standardised():
            classes, share = self.classes[rows].clamp(min=0)[:, None], weights[rows]
            logs = log_softmax(torch.addmm(bias, block, matrix.T), dim=1)
            loss -= (logs.gather(1, classes)[:, 0] * share).sum()
            errors = logs.exp_()
            errors.scatter_add_(1, classes, torch.full_like(classes, -1, dtype=errors.dtype))
            errors *= share.float()[:, None]
            gradient[:, :-1] += errors.T @ block
            gradient[:, -1] += errors.sum(dim=0, dtype=torch.float64)
        total = weights.sum()
        return loss / total, gradient / total

    def fit(
        self,
        weights: Tensor,
        penalty: float,
        tolerance: float,
        max_iterations: int,
        start: Tensor | None = None,
    ) -> Tensor:
        """The minimum, float64 [C, D + 1] with the biases last; no slope exceeds `tolerance` there."""
        if start is None:
            start = torch.zeros(self.shape, dtype=torch.float64, device=self._device)
        parameters = torch.nn.Parameter(start.clone())
        history = _HISTORY_BYTES // (2 * 8 * parameters.numel())
        optimizer = torch.optim.LBFGS(
            [parameters],
            max_iter=max_iterations,
            max_eval=2 * max_iterations,
            tolerance_grad=tolerance,
            tolerance_change=1e-9,
            history_size=min(_LONGEST_HISTORY, max(_SHORTEST_HISTORY, history)),
            line_search_fn="strong_wolfe",
        )

        def objective() -> float:
            loss, gradient = self.cross_entropy(parameters.data, weights)
            matrix = parameters.data[:, :-1]
            gradient[:, :-1] += penalty * matrix
            parameters.grad = gradient
            return float(loss + penalty / 2 * matrix.square().sum())

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        return parameters.detach()


def _kept_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return _KEPT_BYTES


def _choose_penalty(
    problem: _Problem, held_out: NDArray[np.int64], protocol: LogisticProtocol
) -> float:
    """From the strongest penalty on, until held-out images have been predicted worse twice in a row."""
    penalties = sorted(protocol.penalties, reverse=True)
    if len(held_out) == 0:
        return penalties[len(penalties) // 2]
    held = torch.zeros_like(problem.labelled)
    held[torch.from_numpy(held_out).to(held.device)] = 1.0
    losses: list[float] = []
    parameters = None
    for penalty in penalties:
        parameters = problem.fit(
            problem.labelled - held,
            penalty,
            10 * protocol.tolerance,
            protocol.max_iterations // 5,
            parameters,
        )
        losses.append(float(problem.cross_entropy(parameters, held)[0]))
        if len(losses) - 1 - losses.index(min(losses)) == 2:
            break
    return penalties[losses.index(min(losses))]


@torch.no_grad()
def _accuracies(
    parameters: Tensor,
    features: Features,
    labels: Tensor,
    present: NDArray[np.int64],
    num_classes: int,
    scaling: Standardisation,
) -> dict[str, float]:
    """`top1`, and with 6 or more classes `top5`; `present`: the classes of the rows of `parameters`."""
    device = parameters.device
    names = torch.from_numpy(present).to(device)
    labels = labels.to(device)
    matrix, bias = parameters[:, :-1].float(), parameters[:, -1].float()
    num_best = min(5, len(present))
    hits = torch.zeros(num_best, dtype=torch.int64, device=device)
    for rows, block in blocks(features, device, block_rows(max(matrix.shape))):
        check_finite(block, "validation")
        scores = torch.addmm(bias, scaling(block), matrix.T)
        best = names[scores.topk(num_best, dim=1).indices]
        hits += (best == labels[rows][:, None]).sum(dim=0)
    shares = (hits.cumsum(0).double() / len(labels)).tolist()
    found = {"top1": shares[0]}
    if num_classes > 5:
        found["top5"] = shares[-1]
    return found
