"""VICReg: Variance-Invariance-Covariance Regularization (Bardes et al., 2021, arXiv 2105.04906)."""

import torch
from lightly.loss import VICRegLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from torch import Tensor, nn

from rela.data.views import View, is_small
from rela.methods.method import Method, MethodOptions, Progress, head_width
from rela.methods.optimizers import OptimizerSettings

_WIDTH = 8192


class VICReg(Method):
    """Makes both views' outputs equal, keeps the variance of each unit, and decorrelates units.

    The expander is Barlow Twins' projector, F → D → D → D with D = 8192 (but see `head_width`). The terms
    have weights 25, 25 and 1, with the scales of the authors' code; LARS with 0.2 per 256 images, decay
    1e-6 and 10 epochs of warm-up.
    """

    optimizer = OptimizerSettings(
        "lars", lr=0.2, weight_decay=1e-6, warmup_epochs=10, lr_batch_size=256
    )

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        width = head_width(_WIDTH, options.feature_dim)
        self.projector = BarlowTwinsProjectionHead(options.feature_dim, width, width)
        self.criterion = VICRegLoss(gather_distributed=torch.distributed.is_available())

    def views(self) -> tuple[View, ...]:
        """Two views of the same distribution; no blur for small images."""
        size = self.options.image_size
        view = View(
            size,
            blur_probability=0.0 if is_small(size) else 0.5,
            solarize_probability=0.1,
        )
        return view, view

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Equation 6; in float32, since it is a sum over D² covariances."""
        features = [self.backbone(view) for view in views]
        first, second = (self.projector(f).float() for f in features)
        with torch.autocast(first.device.type, enabled=False):
            loss = self.criterion(first, second)
        return loss, features
