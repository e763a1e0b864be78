"""VICReg: Variance-Invariance-Covariance Regularization (Bardes et al., 2021, arXiv 2105.04906)."""

import torch
from lightly.models.modules import BarlowTwinsProjectionHead
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

from rela.data.views import View, is_small
from rela.methods import recipes as published
from rela.methods.barlowtwins import of_all_processes
from rela.methods.method import Method, MethodOptions, Progress, head_width

_WIDTH = 8192
_INVARIANCE, _VARIANCE = 25.0, 25.0
_EPS = 1e-4


class VICReg(Method):
    """Makes both views' outputs equal, keeps the variance of each unit, and decorrelates units.

    The expander is Barlow Twins' projector, F → D → D → D with D = 8192 (but see `head_width`). The terms
    have weights 25, 25 and 1, with the scales of the authors' code.
    """

    recipes = published.VICREG
    rela_anchor = 100.0

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        width = head_width(_WIDTH, options.feature_dim)
        self.projector = BarlowTwinsProjectionHead(options.feature_dim, width, width)

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
            return vicreg_loss(first, second), features


def vicreg_loss(first: Tensor, second: Tensor) -> Tensor:
    """Equation 6 of outputs [B, D] of this process; spread and redundancy are over all processes."""
    loss = _INVARIANCE * mse_loss(first, second)
    for outputs in map(of_all_processes, (first, second)):
        # how much the standard deviation of each unit falls short of 1
        missing_spread = relu(1 - torch.sqrt(outputs.var(dim=0) + _EPS))
        loss = loss + _VARIANCE / 2 * missing_spread.mean() + _redundancy(outputs)
    return loss


def _redundancy(outputs: Tensor) -> Tensor:
    """Sum of all squared covariances of two units, over the number of units.

    lightly's loss takes them by a mask, whose indices it first has to wait for.
    """
    centred = outputs - outputs.mean(dim=0)
    width = outputs.shape[1]
    covariances = centred.T @ centred / (len(outputs) - 1)
    # in rows of one more number, without the last, the diagonal is the first column
    others = covariances.flatten()[:-1].view(width - 1, width + 1)[:, 1:]
    return others.square().sum() / width
