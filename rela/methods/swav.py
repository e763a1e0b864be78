"""SwAV: Contrasting Cluster Assignments (Caron et al., 2020, arXiv 2006.09882)."""

import torch
from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead
from lightly.models.utils import normalize_weight
from lightly.utils.dist import world_size
from torch import Tensor, nn
from torch.nn.functional import normalize

from rela.data.views import View, is_small
from rela.methods import recipes as published
from rela.methods.method import Method, MethodOptions, Progress, head_width
from rela.methods.parts.multi_crop import check_local_crops, local_size, multi_crop_features
from rela.methods.parts.vector_queue import VectorQueue

_HIDDEN_DIM, _OUTPUT_DIM = 2048, 128
_NUM_PROTOTYPES = 3000
_NUM_LOCAL_CROPS = 6
_FROZEN_EPOCHS = 1
_QUEUE_LENGTH = 3840
_QUEUE_EPOCH, _LARGEST_QUEUE_SHARE = 15, 0.15


class SwAV(Method):
    """Every crop predicts the prototypes that the full-sized views of its image are assigned to.

    Projector F → 2048 → 128 (but see `head_width`), 3,000 prototypes of length 1, frozen in the first
    epoch of stage 2, temperature 0.1, and 3 Sinkhorn iterations with ε = 0.05. In batches smaller than a
    queue of 3,840 projections of earlier ones, at most an epoch's, the queue helps to assign prototypes
    evenly (appendix A): from epoch 15 of stage 2, or from 15 % of it, as in 100 epochs.
    """

    recipes = published.SWAV
    rela_anchor = 10.0
    has_local_crops = True

    def __init__(self, backbone: nn.Module, options: MethodOptions) -> None:
        super().__init__(backbone, options)
        chosen = options.local_crops
        self.num_local_crops = _NUM_LOCAL_CROPS if chosen is None else chosen
        if self.num_local_crops:
            check_local_crops(backbone, options.image_size)
        hidden = head_width(_HIDDEN_DIM, options.feature_dim)
        self.projector = SwaVProjectionHead(options.feature_dim, hidden, _OUTPUT_DIM)
        # lightly's prototypes have a bias; the authors' have none
        self.prototypes = nn.Linear(_OUTPUT_DIM, _NUM_PROTOTYPES, bias=False)
        length = min(_QUEUE_LENGTH, max(1, options.num_images))
        self.first_queue = VectorQueue(length, _OUTPUT_DIM)
        self.second_queue = VectorQueue(length, _OUTPUT_DIM)
        self.criterion = SwaVLoss(sinkhorn_gather_distributed=torch.distributed.is_available())

    def views(self) -> tuple[View, ...]:
        """Two full-sized views and the local crops, all with strong colour jitter."""
        size = self.options.image_size
        full = self._view(size, (0.14, 1.0))
        local = self._view(local_size(size), (0.05, 0.14))
        return full, full, *[local] * self.num_local_crops

    def _view(self, size: int, scale: tuple[float, float]) -> View:
        return View(
            size,
            scale=scale,
            brightness=0.8,
            contrast=0.8,
            saturation=0.8,
            hue=0.2,
            blur_probability=0.0 if is_small(self.options.image_size) else 0.5,
        )

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Swapped prediction over all crops (equation 2 and section 3.2)."""
        normalize_weight(self.prototypes.weight)
        features = multi_crop_features(self.backbone, views)
        projections = [normalize(self.projector(f), dim=1) for f in features]
        outputs = [self.prototypes(z).float() for z in projections]
        local = [crop for several in outputs[2:] for crop in several.split(len(views[0]))]
        loss = self.criterion(outputs[:2], local, self._queued(len(views[0]), progress))
        self.first_queue.push(projections[0].detach())
        self.second_queue.push(projections[1].detach())
        return loss.squeeze(), features[:2]

    @torch.no_grad()
    def _queued(self, batch_size: int, progress: Progress) -> list[Tensor] | None:
        """Scores [L, K] of the queue of each full view; None before it is used, and in large batches."""
        total, length = batch_size * world_size(), len(self.first_queue.rows)
        begin = min(
            _QUEUE_EPOCH * progress.steps_per_epoch,
            round(_LARGEST_QUEUE_SHARE * progress.num_steps),
        )
        if total >= length or progress.step < max(begin, length // total + 1):  # full by then
            return None
        queues = self.first_queue, self.second_queue
        return [self.prototypes(queue.share()).float() for queue in queues]

    def before_step(self, progress: Progress) -> None:
        """Freeze the prototypes in the first epoch of stage 2."""
        if progress.epoch < _FROZEN_EPOCHS:
            self.prototypes.weight.grad = None
