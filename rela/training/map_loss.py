"""The spatial loss of stage 1: a student's map against the cached map of the same part of the image."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torchvision.ops import roi_align

from rela.training.maps import MapFormat


def resampled(maps: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What `boxes` show of `maps` at h × w positions: float32 [B, d, h, w], and where known, [B, h, w].

    `maps` float32 [B, d, k, k]; `boxes` float32 [B, 4], top, left, bottom, right as shares of the map, whose
    edges are 0 and 1. Each position is a mean of bilinear samples, RoIAlign (arXiv 1703.06870). It is known
    if its centre lies within the map.
    """
    side = maps.shape[-1]
    columns = (boxes * side)[:, [1, 0, 3, 2]]  # left, top, right, bottom in positions of the map
    of_map = torch.arange(len(maps), device=maps.device, dtype=maps.dtype)[:, None]
    samples = -(-side // min(size))  # a side, at most one position of the map apart
    rois = torch.cat([of_map, columns], 1)
    values: Tensor = roi_align(maps, rois, size, sampling_ratio=samples, aligned=True)
    inside = [
        ((centres >= 0) & (centres <= 1))
        for centres in (_centres(boxes[:, i], boxes[:, i + 2], size[i]) for i in (0, 1))
    ]
    return values, inside[0][:, :, None] & inside[1][:, None, :]


def _centres(first: Tensor, last: Tensor, count: int) -> Tensor:
    """The centres [B, count] of equal parts from `first` to `last` [B]."""
    shares = (torch.arange(count, device=first.device, dtype=first.dtype) + 0.5) / count
    return first[:, None] + (last - first)[:, None] * shares


class MapLoss(nn.Module):
    """Mean over known positions of 1 − cos(P·student, cached), where P is a 1 × 1 convolution C → d.

    - `weight`: that of this loss beside the loss on vectors; the stage's loss is their weighted mean;
    - `learn_head`: put P into the optimizer; else it keeps its random initial value.
    """

    def __init__(
        self, channels: int, format_: MapFormat, weight: float, learn_head: bool = False
    ) -> None:
        super().__init__()
        self.weight, self._format = weight, format_
        self.head = nn.Conv2d(channels, format_.width, 1).requires_grad_(learn_head)

    def forward(self, maps: list[Tensor], batch: dict[str, Any]) -> Tensor:
        """Student maps [B, C, h, w], one for each view; `batch` of the loader has `maps` and `boxes`."""
        losses = []
        for of_view, rows, boxes in zip(maps, batch["maps"], batch["boxes"], strict=True):
            predicted = self.head(of_view).float()
            size = predicted.shape[2], predicted.shape[3]
            with torch.autocast(predicted.device.type, enabled=False):
                cached, is_known = resampled(self._format.restored(rows), boxes, size)
            distance = 1.0 - cosine_similarity(predicted, cached, dim=1)
            losses.append((distance * is_known).sum() / is_known.sum().clamp(min=1))
        return torch.stack(losses).mean()
