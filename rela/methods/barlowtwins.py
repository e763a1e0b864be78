"""Barlow Twins: Learning via Redundancy Reduction (Zbontar et al., 2021, arXiv 2103.03230)."""

import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.utils.dist import gather, world_size
from torch import Tensor, nn

from rela.data.views import View, is_small
from rela.methods import recipes as published
from rela.methods.byol import byol_views
from rela.methods.method import Method, MethodOptions, Progress, head_width

_WIDTH = 8192
_LAMBDA = 5e-3
_LOSS_SCALE, _SMALL_LOSS_SCALE = 0.024, 0.1


class BarlowTwins(Method):
    """Makes the cross-correlation matrix of both views' outputs the identity.

    Projector F → D → D → D with D = 8192 (but see `head_width`), and λ = 0.005. In the paper biases and norm
    layers have the rate 0.0048 = 0.024 · 0.2, since LARS does not adapt theirs. Here, as in the authors'
    training of the published network, the loss is scaled by 0.024 instead, which LARS cancels for weights;
    for small images by 0.1, as in solo-learn.
    """

    recipes = published.BARLOW_TWINS
    rela_anchor = 200.0

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
            loss = self.criterion(of_all_processes(first), of_all_processes(second))
        scale = _SMALL_LOSS_SCALE if is_small(self.options.image_size) else _LOSS_SCALE
        return scale * loss, features


def of_all_processes(outputs: Tensor) -> Tensor:
    """[B, D] of this process → [n · B, D] of all, with gradients.

    lightly's loss of Barlow Twins would instead add correlations of outputs that each process standardises
    on its own. Besides, B · D numbers are fewer than D².
    """
    return outputs if world_size() == 1 else torch.cat(gather(outputs))
