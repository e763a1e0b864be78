"""Top-k accuracy, mean IoU and the chance level."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # reading records requires the chance level but not torch
    from torch import Tensor

_SIGMAS = 3.0


def top_k_accuracies(scores: "Tensor", labels: "Tensor") -> dict[str, float]:
    """`top1`, and with 6 or more classes `top5`, in [0, 1]; scores [N, C], labels int64 [N]."""
    ranked = scores.argsort(dim=1, descending=True)
    hits = ranked == labels[:, None]
    accuracies = {"top1": float(hits[:, 0].float().mean())}
    if scores.shape[1] > 5:
        accuracies["top5"] = float(hits[:, :5].any(dim=1).float().mean())
    return accuracies


def chance_level(largest_class: float, num_images: int) -> float:
    """Top-1 accuracy, in [0, 1], that predicting the largest class for all `num_images` may reach.

    `largest_class` is that class's share p of all images; the level is p + 3 √(p (1 − p) / N), three
    standard deviations of a binomial share above p. No accuracy up to it shows that classes are told apart.
    """
    return largest_class + _SIGMAS * math.sqrt(largest_class * (1 - largest_class) / num_images)


def confusion_matrix(predicted: "Tensor", labels: "Tensor", num_classes: int) -> "Tensor":
    """int64 [C, C], label by prediction; pixels whose label is not below `num_classes` are ignored."""
    labelled = labels < num_classes
    pairs = labels[labelled].long() * num_classes + predicted[labelled].long()
    counts = pairs.bincount(minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


def segmentation_measures(confusion: NDArray[np.int64]) -> dict[str, float]:
    """`miou` and `pixel_accuracy` in [0, 1], `num_scored_classes`, `chance_miou` and `chance_accuracy`.

    The IoU of a class is TP / (TP + FP + FN); the mean is over the classes that occur in labels or
    predictions. Chance predicts the most frequent class everywhere: its share p of the labels is the
    accuracy, and the IoU of that class; that of every other class in the labels is 0.
    """
    labels = confusion.sum(axis=1)
    largest = float(labels.max() / labels.sum())
    correct = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - correct
    scored = union > 0
    return {
        "miou": float((correct[scored] / union[scored]).mean()),
        "pixel_accuracy": float(correct.sum() / confusion.sum()),
        "num_scored_classes": int(scored.sum()),
        "chance_miou": largest / int((labels > 0).sum()),
        "chance_accuracy": largest,
    }
