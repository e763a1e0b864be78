"""Top-1 and top-5 accuracy of class scores."""

from torch import Tensor


def top_k_accuracies(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """`top1`, and `top5` from 6 classes on, in [0, 1]; scores [N, C], labels int64 [N]."""
    ranked = scores.argsort(dim=1, descending=True)
    hits = ranked == labels[:, None]
    accuracies = {"top1": float(hits[:, 0].float().mean())}
    if scores.shape[1] > 5:
        accuracies["top5"] = float(hits[:, :5].any(dim=1).float().mean())
    return accuracies
