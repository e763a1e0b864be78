"""Barlow Twins: Learning via Redundancy Reduction (Zbontar et al., 2021, arXiv 2103.03230)."""

import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.utils.dist import gather, world_size
from torch import Tensor, nn

from rela.data.views import View
from rela.methods.byol import byol_views
from rela.methods.method import Method, MethodOptions, Progress, head_width
from rela.methods.optimizers import OptimizerSettings

_WIDTH = 8192
_LAMBDA = 5e-3
_LOSS_SCALE = 0.024


class BarlowTwins(Method):
    """Makes the cross-correlation matrix of both views' outputs the identity.

    Projector F → D → D → D with D = 8192 (but see `head_width`). LARS with 0.2 per 256 images, decay
    1.5e-6, 10 epochs of warm-up and λ = 0.005. In the paper biases and norm layers have the rate
    0.0048 = 0.024 · 0.2, since LARS does not adapt theirs. Here, as in the authors' training of the
    published network, the loss is scaled by 0.024 instead, which LARS cancels for weights.
    """

    optimizer = OptimizerSettings(
        "lars", lr=0.2, weight_decay=1.5e-6, warmup_epochs=10, lr_batch_size=256
    )

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        width = head_width(_WIDTH, options.feature_dim)
        self.projector = BarlowTwinsProjectionHead(options.feature_dim, width, width)
        self.criterion = BarlowTwinsLoss(_LAMBDA)

    def views(self) -> tuple[View, ...]:
        """BYOL's asymmetric pair."""
        return byol_views(self.options.image_size)

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Equation 1, scaled; in float32, since it is a sum over D² correlations."""
        features = [self.backbone(view) for view in views]
        first, second = (self.projector(f).float() for f in features)
        with torch.autocast(first.device.type, enabled=False):
            loss = self.criterion(_of_all_processes(first), _of_all_processes(second))
        return _LOSS_SCALE * loss, features


def _of_all_processes(outputs: Tensor) -> Tensor:
    """[B, D] of this process → [n · B, D] of all, with gradients.

    lightly's loss would instead add correlations of outputs that each process standardises on its own.
    Besides, B · D numbers are fewer than D².
    """
    return outputs if world_size() == 1 else torch.cat(gather(outputs))
