"""The linear probe of ReLA's authors: a layer on frozen features, trained by Adam at a constant rate."""

import statistics
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rela.evaluation.metrics import top_k_accuracies
from rela.evaluation.protocols import LinearProtocol


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    num_classes: int,
    protocol: LinearProtocol,
    seed: int = 0,
) -> dict[str, Any]:
    """Train the layer and return validation accuracies in [0, 1]: `top1`, `top5` with 6 or more classes.

    The result also holds `batch_size` and, over the last n epochs that the protocol averages,
    `top1_mean_last_n_epochs` and `top1_std_last_n_epochs` (sample standard deviation over the last n epochs
    of this one training). Features float32 [N, D], labels int64 [N], all on one device. `seed` determines
    the result.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(train_features.shape[1], num_classes).to(train_features.device)
    batch_size = protocol.batch_size_for(len(train_labels))
    optimizer = torch.optim.Adam(layer.parameters(), lr=protocol.lr)
    scored_epochs = max(1, min(protocol.averaged_epochs, protocol.epochs))
    scores = []
    for epoch in range(protocol.epochs):
        order = torch.randperm(len(train_labels), generator=generator).to(train_labels.device)
        for rows in torch.split(order, batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(layer(train_features[rows]), train_labels[rows])
            torch.autograd.backward(loss)
            optimizer.step()
        if epoch >= protocol.epochs - scored_epochs:
            with torch.no_grad():
                scores.append(top_k_accuracies(layer(val_features), val_labels))
    found: dict[str, Any] = {**scores[-1], "batch_size": batch_size}
    if scored_epochs > 1:
        last = [score["top1"] for score in scores]
        found[f"top1_mean_last_{scored_epochs}_epochs"] = statistics.fmean(last)
        found[f"top1_std_last_{scored_epochs}_epochs"] = statistics.stdev(last)
    return found
