"""Evaluation protocols: their settings, what they need and what they measure. Imports no torch.

A protocol has

- a `name`, and a `title` for columns of tables;
- `data`: what it needs, see `Data`; those on "voc" have `num_classes`, which --voc-classes sets;
- `measures`: the figures it finds, the leading one first;
- `is_random`: whether its result depends on a probe seed;
- `describe(found)`: one line on how the figures `found` were obtained.

A new one is a class and an entry in `PROTOCOLS` here, a module that computes it, and its line in
`MEASURE` of `rela.stages.evaluate.probing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Found = Mapping[str, Any]
# A data set with labels and a val split, a data set, or the segmentation data set of --voc.
Data = Literal["labels", "images", "voc"]
_LARGE_DATA_SET = 1_000_000


@dataclass(frozen=True)
class Measure:
    """A figure by its key in records; `is_share`: it lies in [0, 1] and tables show it in percent."""

    key: str
    name: str
    is_share: bool = True

    def titled(self, title: str) -> str:
        """`title` with the unit."""
        return f"{title} %" if self.is_share else title


TOP1, TOP5 = Measure("top1", "top-1"), Measure("top5", "top-5")
MIOU, PIXEL_ACCURACY = Measure("miou", "mIoU"), Measure("pixel_accuracy", "pixel accuracy")
POSITION_ACCURACY = Measure("position_accuracy", "position accuracy")
# What predicting the most frequent class everywhere reaches.
CHANCE = Measure("chance_miou", "chance mIoU"), Measure("chance_accuracy", "chance accuracy")


@dataclass(frozen=True)
class KNNProtocol:
    """Cosine neighbours weighted by exp(similarity / temperature) (arXiv 1805.01978)."""

    k: int
    temperature: float = 0.07
    data: ClassVar[Data] = "labels"
    measures: ClassVar[tuple[Measure, ...]] = (TOP1,)
    is_random: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """`knn20`, `knn200`."""
        return f"knn{self.k}"

    @property
    def title(self) -> str:
        """`20-NN`, `200-NN`."""
        return f"{self.k}-NN"

    def neighbours(self, num_train: int) -> int:
        """Number of neighbours that vote, at most all training images."""
        return min(self.k, num_train)

    def describe(self, found: Found) -> str:
        """One line for tables and reports; `found` has `k`."""
        cut = "" if found["k"] == self.k else f" (all train images; {self.k} asked for)"
        return f"k = {found['k']}{cut}, T = {self.temperature:g}, cosine, centre-crop features"


@dataclass(frozen=True)
class LogisticProtocol:
    """Multinomial logistic regression on standardised, frozen features, to convergence.

    The L2 penalty is the one of `penalties` that is best on the share `held_out` of the training images;
    then all of them are fitted. `tolerance`: largest slope of the objective at its minimum.
    """

    penalties: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    held_out: float = 0.1
    tolerance: float = 1e-5
    max_iterations: int = 1000
    name: ClassVar[str] = "linear"
    title: ClassVar[str] = name
    data: ClassVar[Data] = "labels"
    measures: ClassVar[tuple[Measure, ...]] = (TOP1, TOP5)
    is_random: ClassVar[bool] = True

    def describe(self, found: Found) -> str:
        """One line for tables and reports; `found` has `penalty` and `num_held_out`."""
        return (
            "logistic regression to convergence on standardised centre-crop features, L2 penalty "
            f"{found['penalty']:g} chosen on {found['num_held_out']:,} held-out training images"
        )


@dataclass(frozen=True)
class LinearProtocol:
    """Training of a linear layer on frozen features by Adam at a constant rate (ReLA's settings).

    Depends on the scale of the features, so that it is here for comparison with ReLA's figures only.
    Accuracies are of the last epoch, not of the best. `large_batch_size` applies to more than a million
    training images. Mean and standard deviation over the last `averaged_epochs` of one training are reported
    too; they say nothing about the spread over seeds.
    """

    lr: float = 3e-4
    epochs: int = 100
    batch_size: int = 128
    large_batch_size: int = 1024
    averaged_epochs: int = 3
    name: ClassVar[str] = "linear-reference"
    title: ClassVar[str] = name
    data: ClassVar[Data] = "labels"
    measures: ClassVar[tuple[Measure, ...]] = (TOP1, TOP5)
    is_random: ClassVar[bool] = True

    def batch_size_for(self, num_train: int) -> int:
        """The batch for a data set of this many training images."""
        is_large = num_train > _LARGE_DATA_SET
        return min(self.large_batch_size if is_large else self.batch_size, num_train)

    def describe(self, found: Found) -> str:
        """One line for tables and reports; `found` has `batch_size`."""
        return (
            f"frozen centre-crop features, adam, lr {self.lr:g} constant, {self.epochs} epochs, "
            f"{_batch(found, self.batch_size)}, last epoch (and mean ± std over the last "
            f"{self.averaged_epochs} epochs of one training); depends on the scale of the features"
        )


@dataclass(frozen=True)
class FinetuneProtocol:
    """Fine-tuning of a whole model on a share of the labels.

    SimCLR's procedure (arXiv 2002.05709, appendix B.5): SGD with momentum 0.9, rate
    0.05 · batch / 256 without warm-up, no weight decay, only random resized crops and flips; 60
    epochs for 1 % of the labels, 30 for 10 %. As in lightly's benchmarks
    (benchmarks/imagenet/resnet50/finetune_eval.py) the batch is 256, the rate decays along a half
    cosine, momentum is not Nesterov's, and all labels take 30 epochs.
    """

    percent: int
    epochs: int
    lr: float = 0.05
    batch_size: int = 256
    momentum: float = 0.9
    weight_decay: float = 0.0
    trains_backbone: ClassVar[bool] = True
    trained: ClassVar[str] = "whole model trained on"
    data: ClassVar[Data] = "labels"
    measures: ClassVar[tuple[Measure, ...]] = (TOP1, TOP5)
    is_random: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """`finetune-100`, `finetune-10`, `finetune-1`."""
        return f"finetune-{self.percent}"

    title = name

    def batch_size_for(self, num_images: int) -> int:
        """The batch for this many training images, at most all of them."""
        return min(self.batch_size, num_images)

    def num_seen(self, num_images: int) -> int:
        """Number of images shown in all epochs; an incomplete last batch of an epoch is dropped."""
        batch_size = self.batch_size_for(num_images)
        return self.epochs * (num_images // batch_size) * batch_size

    def lr_for(self, batch_size: int) -> float:
        """The learning rate, linear in the batch."""
        return self.lr * batch_size / 256

    def describe(self, found: Found) -> str:
        """One line for tables and reports; `found` has `num_images` and `batch_size`."""
        labels = "" if self.percent == 100 else f" ({self.percent} % of the labels, class-balanced)"
        return (
            f"{self.trained} {found['num_images']:,} images{labels}, sgd, momentum {self.momentum:g}, lr "
            f"{self.lr_for(found['batch_size']):.4g} cosine, {self.epochs} epochs, "
            f"{_batch(found, self.batch_size)}, random resized crops and flips, centre-crop "
            "evaluation, last epoch"
        )


@dataclass(frozen=True)
class AugmentedLinearProtocol(FinetuneProtocol):
    """A linear layer on a frozen backbone that sees random crops and flips, as in lightly's benchmarks.

    SimCLR's settings (benchmarks/imagenet/resnet50/linear_eval.py): SGD with momentum 0.9, rate
    0.1 · batch / 256, half cosine, no weight decay, 90 epochs.
    """

    percent: int = 100
    epochs: int = 90
    lr: float = 0.1
    trains_backbone: ClassVar[bool] = False
    trained: ClassVar[str] = "linear layer on the frozen backbone,"

    @property
    def name(self) -> str:
        """`linear-lightly`."""
        return "linear-lightly"

    title = name


@dataclass(frozen=True)
class SegmentationProtocol:
    """Training of a segmentation head on feature maps of a frozen backbone (ReLA's settings).

    Images and masks are resized to `image_size`² pixels.
    """

    num_classes: int = 21
    image_size: int = 224
    lr: float = 3e-4
    batch_size: int = 8
    epochs: int = 10
    name: ClassVar[str] = "segmentation"
    title: ClassVar[str] = name
    data: ClassVar[Data] = "voc"
    measures: ClassVar[tuple[Measure, ...]] = (MIOU, PIXEL_ACCURACY, *CHANCE)
    is_random: ClassVar[bool] = True

    def describe(self, found: Found) -> str:
        """One line for tables and reports; `found` has `head`, `map`, `image_size`, `batch_size`."""
        own = "" if found["image_size"] == self.image_size else ", the only size the model takes"
        return (
            f"frozen backbone, {found['head']} head on {found['map']} feature maps, stretched to "
            f"{found['image_size']}²{own}, adam, lr {self.lr:g} constant, {self.epochs} epochs, "
            f"{_batch(found, self.batch_size)}, last epoch; {self.num_classes} classes, void left "
            "out; mIoU over the classes in masks or predictions"
        )


@dataclass(frozen=True)
class DenseKNNProtocol(KNNProtocol):
    """The k-NN of vectors, of the positions of the feature maps of a frozen backbone.

    Images are resized to `image_size`² pixels. The class of a position is the most frequent one in its patch
    of the mask. `max_positions` of the training images are neighbours; all of the validation images are
    predicted. Nothing is trained, so that the figures are of the features alone.
    """

    k: int = 20
    num_classes: int = 21
    image_size: int = 224
    max_positions: int = 20_000
    data: ClassVar[Data] = "voc"
    measures: ClassVar[tuple[Measure, ...]] = (MIOU, POSITION_ACCURACY, *CHANCE)
    is_random: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """`dense-knn`."""
        return "dense-knn"

    @property
    def title(self) -> str:
        """`dense 20-NN`."""
        return f"dense {super().title}"

    def describe(self, found: Found) -> str:
        """One line for tables and reports; `found` has `k`, `map`, `image_size` and numbers of positions."""
        cut = "" if found["k"] == self.k else f" (all train positions; {self.k} asked for)"
        return (
            f"k = {found['k']}{cut}, T = {self.temperature:g}, cosine, positions of {found['map']} feature "
            f"maps of images stretched to {found['image_size']}², {found['num_train_positions']:,} of the "
            f"training images, all {found['num_val_positions']:,} of the validation images; class by the "
            "majority of the labelled pixels of a patch; mIoU over the classes in patches or predictions"
        )


def _batch(found: Found, published: int) -> str:
    cut = f" (cut from {published})" if found["batch_size"] < published else ""
    return f"batch {found['batch_size']}{cut}"


Protocol = KNNProtocol | LogisticProtocol | LinearProtocol | FinetuneProtocol | SegmentationProtocol

LOGISTIC_PROTOCOL = LogisticProtocol()
REFERENCE_PROTOCOL = LinearProtocol()
# Its mean and standard deviation of top-1 over the last epochs of one training.
LAST_EPOCHS = tuple(
    f"top1_{what}_last_{REFERENCE_PROTOCOL.averaged_epochs}_epochs" for what in ("mean", "std")
)
LIGHTLY_PROTOCOL = AugmentedLinearProtocol()
KNN_PROTOCOLS = (KNNProtocol(20), KNNProtocol(200))
FINETUNE_PROTOCOLS = (
    FinetuneProtocol(100, 30), FinetuneProtocol(10, 30), FinetuneProtocol(1, 60),
)  # fmt: skip
SEGMENTATION_PROTOCOL, DENSE_KNN_PROTOCOL = SegmentationProtocol(), DenseKNNProtocol()
PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        *KNN_PROTOCOLS, LOGISTIC_PROTOCOL, REFERENCE_PROTOCOL, LIGHTLY_PROTOCOL,
        *FINETUNE_PROTOCOLS, SEGMENTATION_PROTOCOL, DENSE_KNN_PROTOCOL,
    )
}  # fmt: skip
# Two of different kinds, so that they can contradict each other.
DEFAULT_PROTOCOLS = KNN_PROTOCOLS[0].name, LOGISTIC_PROTOCOL.name


def title_of(name: str) -> str:
    """A protocol as people call it, `20-NN` for `knn20`; the name itself if it is unknown."""
    return PROTOCOLS[name].title if name in PROTOCOLS else name


def all_measures() -> list[Measure]:
    """Every measure once, in the order of `PROTOCOLS`."""
    return list(dict.fromkeys(m for protocol in PROTOCOLS.values() for m in protocol.measures))
