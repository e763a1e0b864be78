"""Linear probes: one linear layer on frozen features, by the protocols of rela.probes.protocols."""

import torch
from lightly.utils.scheduler import CosineWarmupScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rela.probes.protocols import LinearProtocol


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    num_classes: int,
    protocol: LinearProtocol,
    seed: int = 0,
) -> dict[str, float]:
    """Train the layer and return validation accuracies in [0, 1]: `top1`, and `top5` from 6 classes.

    Features float32 [N, D], labels int64 [N], all on one device. The result depends on `seed` alone.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(train_features.shape[1], num_classes).to(train_features.device)
    batch_size = min(protocol.batch_size, len(train_labels))
    steps_per_epoch = -(-len(train_labels) // batch_size)
    optimizer: torch.optim.Optimizer
    if protocol.optimizer == "adam":
        optimizer = torch.optim.Adam(layer.parameters(), lr=protocol.lr)
    else:
        optimizer = torch.optim.SGD(layer.parameters(), lr=protocol.lr, momentum=0.9)
    scheduler = None
    if protocol.cosine:
        scheduler = CosineWarmupScheduler(optimizer, 0, protocol.epochs * steps_per_epoch)
    for _ in range(protocol.epochs):
        order = torch.randperm(len(train_labels), generator=generator).to(train_labels.device)
        for rows in torch.split(order, batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(layer(train_features[rows]), train_labels[rows])
            torch.autograd.backward(loss)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    with torch.no_grad():
        ranked = layer(val_features).argsort(dim=1, descending=True)
    hits = ranked == val_labels[:, None]
    accuracies = {"top1": float(hits[:, 0].float().mean())}
    if num_classes > 5:
        accuracies["top5"] = float(hits[:, :5].any(dim=1).float().mean())
    return accuracies
