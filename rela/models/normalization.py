"""Normalisation: uint8 pixels → float input of a network, on the device of the pixels."""

import torch
from torch import Tensor, nn

from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD


class Normalization(nn.Module):
    """(pixel / 255 − mean) / std per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        mean: tuple[float, float, float] = NORMALIZE_MEAN,
        std: tuple[float, float, float] = NORMALIZE_STD,
    ) -> None:
        super().__init__()
        deviation = torch.tensor(std)
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean) / deviation, persistent=False)

    def forward(
        self, view: Tensor, memory_format: torch.memory_format = torch.channels_last
    ) -> Tensor:
        """uint8 [B, 3, S, S] → float32 of the same shape, in `memory_format`.

        Computed as [B, S, 3·S]: loops over only three channels are too short for PyTorch to vectorise,
        and every temporary of a large batch costs as much as the arithmetic.
        """
        rows = view.permute(0, 2, 3, 1).flatten(2).float()
        width = view.shape[3]
        torch.addcmul(self.shift.repeat(width), rows, self.scale.repeat(width), out=rows)
        normalized = rows.view(*rows.shape[:2], width, 3).permute(0, 3, 1, 2)
        return normalized.contiguous(memory_format=memory_format)
