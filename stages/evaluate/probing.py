"""Measuring one model by protocols, which share its features and feature maps."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rela.evaluation.protocols import (
    AugmentedLinearProtocol,
    DenseKNNProtocol,
    FinetuneProtocol,
    KNNProtocol,
    LinearProtocol,
    LogisticProtocol,
    Protocol,
    SegmentationProtocol,
)
from rela.evaluation.voc import VocFolder
from rela.pipeline.locks import in_use
from rela.stages.display import progress_bar
from rela.stages.priors.identify import KnownPrior
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from rela.evaluation.feature_maps import FeatureMaps

    FeaturesOf = Callable[[str], AbstractContextManager[NDArray[Any]]]
    _Maps = tuple[str, tuple[int, ...], FeatureMaps, FeatureMaps]  # head, (S, C, h, w), train, val


@dataclass
class Probing:
    """The inputs of a measurement: a data set, features of a split, the model, a segmentation data set.

    The values of `features_of(split)` have shape [N, D]. Probes of features need no `model`.
    """

    workspace: Workspace
    dataset: DataSet | None
    features_of: "FeaturesOf"
    settings: EmbedSettings
    model: KnownPrior | None = None
    voc: VocFolder | None = None
    _features: "dict[str, tuple[Tensor, Tensor]]" = field(default_factory=dict, init=False)
    _maps: "dict[int, _Maps]" = field(default_factory=dict, init=False)  # by the size asked for

    def measure(self, protocol: Protocol, seed: int) -> dict[str, Any]:
        """The figures of one protocol with one probe seed."""
        return MEASURE[type(protocol)](self, protocol, seed)

    def knn(self, protocol: KNNProtocol, seed: int) -> dict[str, Any]:
        """k-NN accuracy, and the number of neighbours that voted."""
        from rela.evaluation.knn import knn_accuracy

        with self.matrix("train") as train, self.matrix("val") as val:
            accuracy = knn_accuracy(*train, *val, self._num_classes, protocol, self._device)
            return {"top1": accuracy, "k": protocol.neighbours(len(train[1]))}

    def logistic(self, protocol: LogisticProtocol, seed: int) -> dict[str, Any]:
        """Accuracies of logistic regression; features are read from the disk as they are needed."""
        from rela.evaluation.logistic import logistic_probe

        with self.matrix("train") as train, self.matrix("val") as val:
            return logistic_probe(*train, *val, self._num_classes, protocol, seed, self._device)

    def linear(self, protocol: LinearProtocol, seed: int) -> dict[str, Any]:
        """Accuracies of the reference's linear probe."""
        from rela.evaluation.linear import linear_probe

        train, val = self.features("train"), self.features("val")
        return linear_probe(*train, *val, self._num_classes, protocol, seed)

    def finetune(self, protocol: FinetuneProtocol, seed: int) -> dict[str, Any]:
        """Accuracies of the fine-tuned model."""
        from rela.data.sampling import label_subset
        from rela.evaluation.finetune import finetune_probe

        model, dataset = self.model, self.dataset
        assert model is not None and dataset is not None
        train, val = (dataset.open(split) for split in ("train", "val"))
        num_seen = protocol.num_seen(len(label_subset(train.labels, protocol.percent, seed)))
        with progress_bar(num_seen, f"{protocol.name}, probe seed {seed}", "img") as bar:
            return finetune_probe(
                model.load(), model.identity.preprocessing, train, val,
                self._num_classes, protocol, seed, self._device, self.settings.threads, bar.update,
            )  # fmt: skip

    def segmentation(self, protocol: SegmentationProtocol, seed: int) -> dict[str, Any]:
        """mIoU and pixel accuracy of a head on feature maps."""
        from rela.evaluation.segmentation import segmentation_probe

        head, (size, *shape), train, val = self._feature_maps(protocol)
        total = protocol.epochs * len(train.masks)
        with progress_bar(total, f"{protocol.name}, probe seed {seed}", "img") as bar:
            found = segmentation_probe(train, val, head, protocol, seed, self._device, bar.update)
        return {
            **found, "map": _times(shape), "image_size": size, "num_train_images": len(train.masks),
            "num_val_images": len(val.masks),
        }  # fmt: skip

    def dense_knn(self, protocol: DenseKNNProtocol, seed: int) -> dict[str, Any]:
        """mIoU and accuracy of the nearest positions of feature maps."""
        from rela.evaluation.dense_knn import dense_knn

        _, (size, *shape), train, val = self._feature_maps(protocol)
        with progress_bar(len(val.masks), f"{protocol.name}, probe seed {seed}", "img") as bar:
            found = dense_knn(train, val, protocol, seed, self._device, bar.update)
        return {**found, "map": _times(shape), "image_size": size}

    @cached_property
    def _device(self) -> "torch.device":
        from rela.representations.embedder import choose_device

        return choose_device(self.settings.device)

    @cached_property
    def _num_classes(self) -> int:
        assert self.dataset is not None
        return len(self.dataset.content.class_names)

    def features(self, split: str) -> "tuple[Tensor, Tensor]":
        """Features float32 [N, D] and labels int64 [N] of a split; embedded if they are missing."""
        if split not in self._features:
            self._features[split] = self._load_features(split)
        return self._features[split]

    def _load_features(self, split: str) -> "tuple[Tensor, Tensor]":
        import numpy as np
        import torch

        with self.matrix(split) as (values, labels):
            features = torch.from_numpy(values.astype(np.float32)).to(self._device)
        return features, labels.to(self._device)

    @contextmanager
    def matrix(self, split: str) -> "Iterator[tuple[NDArray[Any], Tensor]]":
        """Features [N, D] mapped from the disk, and labels int64 [N]; embedded if they are not there yet."""
        import torch

        assert self.dataset is not None
        with self.features_of(split) as values:
            yield values, torch.from_numpy(self.dataset.open(split).labels)

    def _feature_maps(self, protocol: SegmentationProtocol | DenseKNNProtocol) -> "_Maps":
        """The maps of both splits, computed for the first probe seed and kept for all on --voc."""
        from rela.evaluation.feature_maps import compute_feature_maps, map_size
        from rela.evaluation.segmentation import head_for

        if protocol.image_size not in self._maps:
            assert self.voc is not None and self.model is not None
            backbone, identity = self.model.load(), self.model.identity
            shape = map_size(backbone, protocol.image_size, identity.preprocessing.crop)
            splits = []
            for split, pairs in (("train", self.voc.train), ("val", self.voc.val)):
                with progress_bar(len(pairs), f"feature maps of {split}", "img") as bar:
                    maps = compute_feature_maps(
                        backbone, identity.preprocessing, pairs, shape, protocol.num_classes,
                        self.workspace.evaluations_dir, self._device, self.settings.threads, bar.update,
                    )  # fmt: skip
                splits.append(maps)
            self._maps[protocol.image_size] = head_for(backbone), shape, splits[0], splits[1]
        return self._maps[protocol.image_size]


def _times(shape: list[int]) -> str:
    return "×".join(str(side) for side in shape)


@contextmanager
def mapped(representations: Representations) -> "Iterator[NDArray[Any]]":
    """The values [N, D], mapped from the disk; raises CorruptArtifactError if they are damaged."""
    with in_use(representations.path):
        yield representations.matrix().values


# How each protocol is computed: by its class, a function of (probing, protocol, probe seed).
MEASURE: dict[type, Callable[[Probing, Any, int], dict[str, Any]]] = {
    KNNProtocol: Probing.knn,
    LogisticProtocol: Probing.logistic,
    LinearProtocol: Probing.linear,
    AugmentedLinearProtocol: Probing.finetune,
    FinetuneProtocol: Probing.finetune,
    SegmentationProtocol: Probing.segmentation,
    DenseKNNProtocol: Probing.dense_knn,
}
