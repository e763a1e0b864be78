"""SimCLR: A Simple Framework for Contrastive Learning (Chen et al., 2020, arXiv 2002.05709)."""

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn

from rela.data.views import View, is_small
from rela.methods.method import Method, MethodOptions, Progress
from rela.methods.optimizers import OptimizerSettings

_OUTPUT_DIM = 128
_TEMPERATURE, _SMALL_TEMPERATURE = 0.1, 0.5


class SimCLR(Method):
    """Contrasts two views of an image with all other views in the batch, over all devices.

    Projector F → F → 128. LARS with 0.3 per 256 images, decay 1e-6, 10 epochs of warm-up and temperature
    0.1 are the paper's for ImageNet (table 5); temperature 0.5, half the colour strength and no blur for
    small images are its settings for CIFAR-10 (appendix B.9).
    """

    optimizer = OptimizerSettings(
        "lars", lr=0.3, weight_decay=1e-6, warmup_epochs=10, lr_batch_size=256
    )

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        width = options.feature_dim
        self.projector = SimCLRProjectionHead(width, width, _OUTPUT_DIM)
        small = is_small(options.image_size)
        self.criterion = NTXentLoss(
            _SMALL_TEMPERATURE if small else _TEMPERATURE,
            gather_distributed=torch.distributed.is_available(),
        )

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
            return self.criterion(first, second), features
