"""BYOL: Bootstrap Your Own Latent (Grill et al., 2020, arXiv 2006.07733)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from rela.data.views import View, is_small
from rela.methods import recipes as published
from rela.methods.method import MethodOptions, MomentumMethod, Progress, momentum_copy

_OUTPUT_DIM = 256
_LOSS_SCALES = {"rela": 0.5, "reference": 0.5, "paper": 2.0}


class _Head(nn.Module):
    """lightly's BYOLProjectionHead and BYOLPredictionHead, whose import takes seconds."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Linear(width, _OUTPUT_DIM),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] → [B, 256]."""
        output: Tensor = self.layers(features)
        return output


class BYOL(MomentumMethod):
    """An online network predicts the projection of the other view by its moving average.

    Projector F → 2F → 256 and predictor 256 → 2F → 256, both with batch norm: 4096 units for the paper's
    ResNet-50. The momentum is a constant 0.99, as in ReLA's reference, with half the sum of the two negative
    cosines. In the paper it rises to 1 from a value for the length of the training, with twice the sum: the
    squared distances of unit vectors, but for a constant. LARS cancels the factor for weights, not for
    biases and norm layers.
    """

    recipes = published.BYOL

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        width = options.feature_dim
        self.projector = _Head(width, 2 * width)
        self.predictor = _Head(_OUTPUT_DIM, 2 * width)
        self.momentum_backbone = momentum_copy(backbone)
        self.momentum_projector = momentum_copy(self.projector)

    def views(self) -> tuple[View, ...]:
        """The paper's asymmetric pair."""
        return byol_views(self.options.image_size)

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Negative cosines of each prediction and the other view's projection (equation 2)."""
        features = [self.backbone(view) for view in views]
        predictions = [self.predictor(self.projector(f)).float() for f in features]
        with torch.no_grad():
            projections = [
                self.momentum_projector(self.momentum_backbone(view)).float() for view in views
            ]
        scale = _LOSS_SCALES[self.options.hyperparameters]
        loss = -scale * (
            cosine_similarity(predictions[0], projections[1]).mean()
            + cosine_similarity(predictions[1], projections[0]).mean()
        )
        return loss, features


def byol_views(size: int) -> tuple[View, View]:
    """Views that differ in blur and solarization (table 6); no blur for small images."""
    blur = not is_small(size)
    return (
        View(size, blur_probability=1.0 if blur else 0.0),
        View(size, blur_probability=0.1 if blur else 0.0, solarize_probability=0.2),
    )
