"""BYOL: Bootstrap Your Own Latent (Grill et al., 2020, arXiv 2006.07733)."""

import copy

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn

from rela.views import View

_OUTPUT_DIM = 256
_LARGEST_UNBLURRED = 32  # pixels; ReLA's reference leaves blur out on CIFAR


class BYOL(nn.Module):
    """An online network predicts what its moving average projects of the other view.

    Projector F → 2F → 256 and predictor 256 → 2F → 256, both with batch norm, as in the reference
    settings of ReLA; momentum 0.99, constant.
    """

    momentum = 0.99

    def __init__(self, backbone: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = BYOLProjectionHead(feature_dim, 2 * feature_dim, _OUTPUT_DIM)
        self.predictor = BYOLPredictionHead(_OUTPUT_DIM, 2 * feature_dim, _OUTPUT_DIM)
        self.momentum_backbone = copy.deepcopy(backbone)
        self.momentum_projector = copy.deepcopy(self.projector)
        deactivate_requires_grad(self.momentum_backbone)
        deactivate_requires_grad(self.momentum_projector)
        self.criterion = NegativeCosineSimilarity()

    @staticmethod
    def views(size: int) -> tuple[View, ...]:
        """The paper's asymmetric pair; without blur for small images."""
        blur = size > _LARGEST_UNBLURRED
        return (
            View(size, blur_probability=1.0 if blur else 0.0),
            View(size, blur_probability=0.1 if blur else 0.0, solarize_probability=0.2),
        )

    def forward(self, views: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Two views [B, 3, S, S] → (loss, the backbone's features of each view [B, F])."""
        features = [self.backbone(view) for view in views]
        predictions = [self.predictor(self.projector(f)) for f in features]
        with torch.no_grad():
            projections = [self.momentum_projector(self.momentum_backbone(view)) for view in views]
        loss = 0.5 * (
            self.criterion(predictions[0], projections[1])
            + self.criterion(predictions[1], projections[0])
        )
        return loss, features

    @torch.no_grad()
    def update_momentum(self) -> None:
        """Move the momentum network towards the online one; once per optimizer step."""
        update_momentum(self.backbone, self.momentum_backbone, self.momentum)
        update_momentum(self.projector, self.momentum_projector, self.momentum)
