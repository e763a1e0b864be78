"""A queue of vectors of earlier batches, as in MoCo (arXiv 1911.05722) and SwAV (arXiv 2006.09882)."""

import torch
from lightly.models.utils import concat_all_gather
from lightly.utils.dist import rank, world_size
from torch import Tensor, nn
from torch.nn.functional import normalize


class VectorQueue(nn.Module):
    """The newest `length` vectors of all processes, float32 [length, width]; at first random directions.

    It is part of the state dict, and the same on every process.
    """

    rows: Tensor
    position: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", normalize(torch.randn(length, width), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, vectors: Tensor) -> None:
        """Replace the oldest vectors by these, [B, width] of each process. Never waits for the device."""
        if world_size() > 1:
            vectors = concat_all_gather(vectors.contiguous())
        length = len(self.rows)
        skipped = max(0, len(vectors) - length)
        places = torch.arange(skipped, len(vectors), device=vectors.device) + self.position
        self.rows[places % length] = vectors[skipped:].to(self.rows.dtype)
        self.position.add_(len(vectors)).remainder_(length)

    def share(self) -> Tensor:
        """This process's part of the vectors: as many for each."""
        count = len(self.rows) // world_size()
        return self.rows[rank() * count :][:count]
