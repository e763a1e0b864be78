"""Supervised training on the labels, as a baseline (Goyal et al., 2017, arXiv 1706.02677)."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rela.data.views import View
from rela.methods import recipes as published
from rela.methods.method import Method, MethodOptions, Progress

_UNLABELLED = -1


class Supervised(Method):
    """Cross-entropy of a linear classifier; images without a label are ignored.

    Optimizer, warm-up, crops and flips are the publication's. A cosine replaces its step schedule (arXiv
    1812.01187).
    """

    recipes = published.SUPERVISED
    needs_labels = True

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        self.classifier = nn.Linear(options.feature_dim, options.num_classes)

    def views(self) -> tuple[View, ...]:
        """One random crop and flip, without colour jitter."""
        return (View(self.options.image_size, jitter_probability=0.0, gray_probability=0.0),)

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Mean cross-entropy over the labelled images; 0 without any."""
        features = self.backbone(views[0])
        losses = cross_entropy(
            self.classifier(features), labels, ignore_index=_UNLABELLED, reduction="sum"
        )
        return losses / (labels != _UNLABELLED).sum().clamp(min=1), [features]
