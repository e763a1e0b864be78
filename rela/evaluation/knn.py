"""Weighted k-nearest-neighbour classification of frozen features (Wu et al., 2018, arXiv 1805.01978)."""

from lightly.utils.benchmarking import knn_predict
from torch import Tensor
from torch.nn.functional import normalize

from rela.evaluation.protocols import KNNProtocol

_BLOCK_ROWS = 512


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    num_classes: int,
    protocol: KNNProtocol,
) -> float:
    """Top-1 accuracy in [0, 1] of the class with the largest sum of weights.

    Features float32 [N, D], labels int64 [N]. k is `protocol.neighbours(N)`, at most the number of
    training rows.
    """
    bank = normalize(train_features, dim=1).T.contiguous()
    k = protocol.neighbours(len(train_labels))
    correct = 0
    for start in range(0, len(val_labels), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        queries = normalize(val_features[rows], dim=1)
        ranked = knn_predict(queries, bank, train_labels, num_classes, k, protocol.temperature)
        correct += int((ranked[:, 0] == val_labels[rows]).sum())
    return correct / len(val_labels)
