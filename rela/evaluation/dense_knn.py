"""k-NN of positions: features at a place of an image → the class of its patch of the mask."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rela.errors import DataError
from rela.evaluation.feature_maps import FeatureMaps
from rela.evaluation.feature_rows import block_rows
from rela.evaluation.knn import knn_predictions
from rela.evaluation.metrics import confusion_matrix, segmentation_measures
from rela.evaluation.protocols import DenseKNNProtocol
from rela.evaluation.voc import VOID

# Features [P, C] and classes int64 [P] of positions.
Positions = tuple[NDArray[np.float16], NDArray[np.int64]]


def dense_knn(
    train: FeatureMaps,
    val: FeatureMaps,
    protocol: DenseKNNProtocol,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int], Any] = lambda count: None,
) -> dict[str, Any]:
    """`miou` and `position_accuracy` in [0, 1] of the positions of `val`, of which each counts the same.

    The rule is that of `knn_predictions`. `seed` draws the training positions. They, and the validation
    images of 64 MiB of features, are in memory at a time. Raises DataError if all pixels of a split are void.
    """
    features, classes = training_positions(train, protocol, seed)
    total, width, *places = val.features.shape
    images = max(1, block_rows(width) // int(np.prod(places)))
    confusion = torch.zeros(protocol.num_classes, protocol.num_classes, dtype=torch.int64)
    for first in range(0, total, images):
        some = slice(first, first + images)
        labels = patch_classes(val.masks[some], tuple(places), protocol.num_classes)
        queries = val.features[some].transpose(0, 2, 3, 1)[labels != VOID]
        if len(queries):
            predicted = knn_predictions(
                features, torch.from_numpy(classes), queries, protocol.num_classes, protocol, device
            )
            truth = torch.from_numpy(labels[labels != VOID])
            confusion += confusion_matrix(predicted, truth, protocol.num_classes)
        on_progress(len(labels))
    if not confusion.any():
        raise _all_void("val")
    found: dict[str, Any] = segmentation_measures(confusion.numpy())
    return {
        "position_accuracy": found.pop("pixel_accuracy"), **found,
        "k": protocol.neighbours(len(classes)), "num_train_positions": len(classes),
        "num_val_positions": int(confusion.sum()),
    }  # fmt: skip


def training_positions(maps: FeatureMaps, protocol: DenseKNNProtocol, seed: int) -> Positions:
    """At most `max_positions` that are not void, in order: all of them, or drawn without replacement."""
    _, _, *places = maps.features.shape
    labels = patch_classes(maps.masks, tuple(places), protocol.num_classes)
    labelled = np.argwhere(labels != VOID)
    if not len(labelled):
        raise _all_void("train")
    if len(labelled) > protocol.max_positions:
        drawn = np.random.default_rng(seed).choice(
            len(labelled), protocol.max_positions, replace=False
        )
        labelled = labelled[np.sort(drawn)]
    image, row, column = labelled.T
    return np.asarray(maps.features[image, :, row, column]), labels[image, row, column]


def patch_classes(
    masks: NDArray[np.uint8], places: tuple[int, ...], num_classes: int
) -> NDArray[np.int64]:
    """Of each of h × w patches, the most frequent class, the smaller of two; VOID without a labelled pixel.

    Masks [N, S, S] → [N, h, w]. Row r of the pixels belongs to row ⌊r h / S⌋ of the patches; columns, too.
    """
    height, width = places
    rows, columns = (
        np.arange(side) * count // side for side, count in zip(masks.shape[1:], places, strict=True)
    )
    patch = rows[:, None] * width + columns
    found = np.empty((len(masks), height * width), np.int64)
    for mask, classes in zip(masks, found, strict=True):
        seen = mask != VOID
        pairs = patch[seen] * num_classes + mask[seen]
        counts = np.bincount(pairs, minlength=height * width * num_classes)
        counts = counts.reshape(-1, num_classes)
        classes[:] = np.where(counts.any(axis=1), counts.argmax(axis=1), VOID)
    return found.reshape(-1, height, width)


def _all_void(split: str) -> DataError:
    return DataError(f"every pixel of every {split} mask is void; expected labelled pixels")
