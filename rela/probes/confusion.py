"""Measures of semantic segmentation from a confusion matrix."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """int64 [C, C], label by prediction; pixels whose label is not below `num_classes` are left out."""
    labelled = labels < num_classes
    pairs = labels[labelled].long() * num_classes + predicted[labelled].long()
    counts = torch.bincount(pairs, minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


def segmentation_measures(confusion: NDArray[np.int64]) -> dict[str, float]:
    """`miou` and `pixel_accuracy` in [0, 1], and `num_scored_classes`.

    A class's intersection over union is TP / (TP + FP + FN); the mean is over the classes that occur
    in labels or predictions.
    """
    correct = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - correct
    scored = union > 0
    return {
        "miou": float((correct[scored] / union[scored]).mean()),
        "pixel_accuracy": float(correct.sum() / confusion.sum()),
        "num_scored_classes": int(scored.sum()),
    }
