"""MoCo v3: Training Self-Supervised Vision Transformers (Chen et al., 2021, arXiv 2104.02057)."""

from dataclasses import replace

import torch
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import concat_all_gather
from lightly.utils import dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from rela.data.views import View
from rela.methods import recipes as published
from rela.methods.byol import byol_views
from rela.methods.method import MethodOptions, MomentumMethod, Progress, head_width, momentum_copy

_HIDDEN_DIM, _OUTPUT_DIM = 4096, 256


class MoCoV3(MomentumMethod):
    """Contrasts the prediction of each view with the moving average's projection of the other, in a batch.

    The authors' two recipes depend on the architecture:

    - with batch norm in the backbone (ResNet): projector of 2 layers, temperature 1, crops of at least 0.2
      of the area;
    - without (ViT): projector of 3 layers, temperature 0.2, crops of at least 0.08.

    Hidden layers have 4096 units (but see `head_width`), with batch norm everywhere (the authors' predictor
    for a ResNet has none at the end). The momentum rises to 1. LARS is
    the ResNet's optimizer; for a ViT choose --optimizer adamw --lr 1.5e-4 × batch size / 256
    --weight-decay 0.1 --warmup-epochs 40. Patch embeddings are trained, not frozen.
    """

    recipes = published.MOCOV3
    rela_anchor = 20.0

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        convolutional = any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
        self.temperature = 1.0 if convolutional else 0.2
        self.smallest_crop = 0.2 if convolutional else 0.08
        hidden = head_width(_HIDDEN_DIM, options.feature_dim)
        self.projector = MoCoProjectionHead(
            options.feature_dim,
            hidden,
            _OUTPUT_DIM,
            num_layers=2 if convolutional else 3,
            batch_norm=True,
        )
        self.predictor = MoCoProjectionHead(_OUTPUT_DIM, hidden, _OUTPUT_DIM, batch_norm=True)
        self.momentum_backbone = momentum_copy(backbone)
        self.momentum_projector = momentum_copy(self.projector)

    def views(self) -> tuple[View, ...]:
        """BYOL's asymmetric pair, with the crop scale for the architecture."""
        scale = (self.smallest_crop, 1.0)
        return tuple(replace(v, scale=scale) for v in byol_views(self.options.image_size))

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Sum of the contrastive losses of both directions (algorithm 1)."""
        features = [self.backbone(view) for view in views]
        queries = [self.predictor(self.projector(f)) for f in features]
        with torch.no_grad():
            keys = [self.momentum_projector(self.momentum_backbone(view)) for view in views]
        loss = self._contrast(queries[0], keys[1]) + self._contrast(queries[1], keys[0])
        return loss, features

    def _contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """2τ · cross-entropy of [B, 256] queries with the keys of all devices."""
        queries, keys = normalize(queries.float(), dim=1), normalize(keys.float(), dim=1)
        if dist.world_size() > 1:
            keys = concat_all_gather(keys)
        own = torch.arange(len(queries), device=queries.device) + dist.rank() * len(queries)
        logits = queries @ keys.T / self.temperature
        return 2 * self.temperature * cross_entropy(logits, own)
