"""SimCLR: A Simple Framework for Contrastive Learning (Chen et al., 2020, arXiv 2002.05709)."""

import torch
from lightly.models.modules import SimCLRProjectionHead
from lightly.utils.dist import gather, rank, world_size
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from rela.data.views import View, is_small
from rela.methods import recipes as published
from rela.methods.method import Method, MethodOptions, Progress

_OUTPUT_DIM = 128
_TEMPERATURE, _SMALL_TEMPERATURE = 0.1, 0.5


class SimCLR(Method):
    """Contrasts two views of an image with all other views in the batch, over all devices.

    Projector F → F → 128. Temperature 0.1 is the paper's for ImageNet (table 5); temperature 0.5, half the
    colour strength and no blur for small images are its settings for CIFAR-10 (appendix B.9).
    """

    recipes = published.SIMCLR
    rela_anchor = 30.0

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        width = options.feature_dim
        self.projector = SimCLRProjectionHead(width, width, _OUTPUT_DIM)
        small = is_small(options.image_size)
        self.temperature = _SMALL_TEMPERATURE if small else _TEMPERATURE

    def views(self) -> tuple[View, ...]:
        """Two views of the same distribution: colour strength 1, blur 0.5; for small images 0.5 and 0."""
        size = self.options.image_size
        small = is_small(size)
        strength = 0.5 if small else 1.0
        view = View(
            size,
            brightness=0.8 * strength,
            contrast=0.8 * strength,
            saturation=0.8 * strength,
            hue=0.2 * strength,
            blur_probability=0.0 if small else 0.5,
        )
        return view, view

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """NT-Xent (equation 1), averaged over both views."""
        features = [self.backbone(view) for view in views]
        first, second = (self.projector(f).float() for f in features)
        with torch.autocast(first.device.type, enabled=False):
            return nt_xent(first, second, self.temperature), features


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each row's partner among the rows of all processes but itself.

    Both views [B, D] of this process. lightly's loss removes the diagonal by its indices, which it first
    has to wait for.
    """
    rows = normalize(torch.stack([first, second]), dim=2)
    several = world_size() > 1
    everyone = torch.cat(gather(rows.contiguous()), dim=1) if several else rows
    own = torch.arange(len(first), device=first.device) + rank() * len(first)
    total = everyone.shape[1]
    own, partners = torch.cat([own, own + total]), torch.cat([own + total, own])
    scores = rows.flatten(0, 1) @ everyone.flatten(0, 1).T / temperature
    scores = scores.scatter(1, own[:, None], -torch.inf)
    return cross_entropy(scores, partners)
