"""MoCo v2: Improved Baselines with Momentum Contrastive Learning (Chen et al., 2020, arXiv 2003.04297)."""

from typing import Literal

import torch
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle
from lightly.utils.dist import world_size
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from rela.data.views import View, is_small
from rela.methods import recipes as published
from rela.methods.method import MethodOptions, MomentumMethod, Progress, momentum_copy
from rela.methods.parts.vector_queue import VectorQueue

_OUTPUT_DIM = 128
_TEMPERATURE, _SMALL_TEMPERATURE = 0.2, 0.1
_LARGEST_QUEUE, _LARGEST_SMALL_QUEUE = 65_536, 4096


class MoCoV2(MomentumMethod):
    """Contrasts a query with its key and a queue of keys of earlier batches, made by a moving average.

    Projector F → F → 128, temperature 0.2 and a queue of 65,536 keys are the publication's, as in MoCo
    (arXiv 1911.05722); for small images temperature 0.1 and 4,096 keys, as in the authors' notebook for
    CIFAR-10. The queue holds at most half an epoch of images, since in a longer one an old key of the
    query's own image would often be a negative. It is part of the checkpoint. With the reference's
    hyperparameters, which define no queue, the momentum is 0.999.
    """

    recipes = published.MOCOV2
    rela_anchor = 45.0
    reference_momentum = 0.999
    paper_ema: Literal["constant", "cosine"] = "constant"

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        width = options.feature_dim
        self.projector = MoCoProjectionHead(width, width, _OUTPUT_DIM)
        self.momentum_backbone = momentum_copy(backbone)
        self.momentum_projector = momentum_copy(self.projector)
        small = is_small(options.image_size)
        self.temperature = _SMALL_TEMPERATURE if small else _TEMPERATURE
        longest = _LARGEST_SMALL_QUEUE if small else _LARGEST_QUEUE
        self.queue = VectorQueue(min(longest, max(1, options.num_images // 2)), _OUTPUT_DIM)

    def views(self) -> tuple[View, ...]:
        """Two views of the same distribution; no blur for small images."""
        return mocov2_views(self.options.image_size)

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """InfoNCE of the queries (first views) against their keys (second views) and the queue."""
        features = self.backbone(views[0])
        queries = normalize(self.projector(features).float(), dim=1)
        keys = normalize(self._keys(views[1]), dim=1)
        with torch.autocast(queries.device.type, enabled=False):
            own = (queries * keys).sum(dim=1, keepdim=True)
            # a copy, since the queue changes before the backward pass
            scores = torch.cat([own, queries @ self.queue.rows.clone().T], dim=1) / self.temperature
        self.queue.push(keys)
        first = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        return cross_entropy(scores, first), [features]

    @torch.no_grad()
    def _keys(self, view: Tensor) -> Tensor:
        """[B, 128], of batches shuffled over devices, since batch norms would otherwise leak the pairs."""
        several = world_size() > 1
        order = None
        if several:
            view, order = batch_shuffle(view.contiguous(), distributed=True)
        keys: Tensor = self.momentum_projector(self.momentum_backbone(view)).float()
        if several:
            keys = batch_unshuffle(keys, order, distributed=True)
        return keys


def mocov2_views(size: int) -> tuple[View, View]:
    """Views of MoCo v2 and SimSiam; no blur for small images."""
    view = View(
        size,
        scale=(0.2, 1.0),
        saturation=0.4,
        blur_probability=0.0 if is_small(size) else 0.5,
    )
    return view, view
