"""SimSiam: Exploring Simple Siamese Representation Learning (Chen & He, 2020, arXiv 2011.10566)."""

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from torch import Tensor, nn

from rela.data.views import View
from rela.methods import recipes as published
from rela.methods.method import Method, MethodOptions, Progress, head_width
from rela.methods.mocov2 import mocov2_views

_WIDTH = 2048


class SimSiam(Method):
    """A network predicts its own projection of the other view, with a stop-gradient on the target.

    Projector F → D → D → D and predictor D → D/4 → D, with D = 2048 (but see `head_width`). A constant rate
    of the predictor is slightly better in the paper; here one schedule spans all weights and both stages.
    """

    recipes = published.SIMSIAM
    rela_anchor = 5.0

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        width = head_width(_WIDTH, options.feature_dim)
        self.projector = SimSiamProjectionHead(options.feature_dim, width, width)
        self.predictor = SimSiamPredictionHead(width, width // 4, width)
        self.criterion = NegativeCosineSimilarity()

    def views(self) -> tuple[View, ...]:
        """MoCo v2's: two views of the same distribution."""
        return mocov2_views(self.options.image_size)

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Mean negative cosine between each prediction and the other view's projection."""
        features = [self.backbone(view) for view in views]
        projections = [self.projector(f).float() for f in features]
        predictions = [self.predictor(z).float() for z in projections]
        loss = 0.5 * (
            self.criterion(predictions[0], projections[1].detach())
            + self.criterion(predictions[1], projections[0].detach())
        )
        return loss, features
