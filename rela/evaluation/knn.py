"""Weighted k-nearest-neighbour classification of frozen features (Wu et al., 2018, arXiv 1805.01978)."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rela.evaluation.feature_rows import Features, block_rows, blocks, check_finite
from rela.evaluation.protocols import KNNProtocol

_QUERY_ROWS = 512


def knn_accuracy(
    train_features: Features,
    train_labels: Tensor,
    val_features: Features,
    val_labels: Tensor,
    num_classes: int,
    protocol: KNNProtocol,
    device: torch.device | str = "cpu",
) -> float:
    """Top-1 accuracy in [0, 1] of the class with the largest sum of weights.

    As `knn_predictions`; labels int64 [N].
    """
    predicted = knn_predictions(
        train_features, train_labels, val_features, num_classes, protocol, device
    )
    return int((predicted == val_labels.cpu()).sum()) / len(val_labels)


def knn_predictions(
    train_features: Features,
    train_labels: Tensor,
    val_features: Features,
    num_classes: int,
    protocol: KNNProtocol,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Of each validation row, the class with the largest sum of weights; int64 [M], on the CPU.

    Features float32 or float16 [N, D], also memory-mapped, labels int64 [N]. k is `protocol.neighbours(N)`,
    at most the number of training rows. Whatever the numbers of rows, classes and neighbours, blocks of
    64 MiB are in memory at a time. Raises DataError for features that are not finite.
    """
    device = torch.device(device)
    k = protocol.neighbours(len(train_labels))
    train_labels = train_labels.to(device)
    query_rows = min(_QUERY_ROWS, block_rows(num_classes))
    predicted = torch.empty(len(val_features), dtype=torch.int64)
    for rows, queries in blocks(val_features, device, block_rows(max(k, val_features.shape[1]))):
        check_finite(queries, "validation")
        similarities, labels = _neighbours(
            normalize(queries, dim=1), train_features, train_labels, k, query_rows
        )
        weights = (similarities / protocol.temperature).exp()
        for some in range(0, len(queries), query_rows):
            part = slice(some, some + query_rows)
            votes = torch.zeros(len(weights[part]), num_classes, device=device)
            votes.scatter_add_(1, labels[part], weights[part])
            predicted[rows][part] = votes.argmax(dim=1).cpu()
    return predicted


def _neighbours(
    queries: Tensor, features: Features, labels: Tensor, k: int, query_rows: int
) -> tuple[Tensor, Tensor]:
    """Cosines and labels of the k nearest rows, [Q, k] each, from blocks of rows one after the other."""
    nearest = torch.zeros(len(queries), 0, device=queries.device)
    classes = torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)
    for rows, block in blocks(
        features, queries.device, block_rows(max(query_rows, queries.shape[1]))
    ):
        check_finite(block, "training")
        bank = normalize(block, dim=1).T.contiguous()
        found, places = [], []
        for some in torch.split(queries, query_rows):
            best = (some @ bank).topk(min(k, bank.shape[1]), dim=1)
            found.append(best.values)
            places.append(labels[rows][best.indices])
        nearest = torch.cat([nearest, torch.cat(found)], dim=1)
        classes = torch.cat([classes, torch.cat(places)], dim=1)
        if nearest.shape[1] > k:
            best = nearest.topk(k, dim=1)
            nearest, classes = best.values, classes.gather(1, best.indices)
    return nearest, classes
