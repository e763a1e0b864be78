"""Rows of features, block by block: from a tensor, or from a matrix on disk larger than the memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rela.data import memory
from rela.errors import DataError

Features = Tensor | NDArray[Any]  # float16 or float32 [N, D]
_BLOCK_NUMBERS = 1 << 24  # 64 MiB of float32


def block_rows(width: int) -> int:
    """How many rows of `width` numbers make a block of 64 MiB."""
    return max(1, _BLOCK_NUMBERS // max(1, width))


def blocks(
    features: Features, device: torch.device, num_rows: int
) -> Iterator[tuple[slice, Tensor]]:
    """(rows, float32 [B, D] on the device), in order, `num_rows` at a time.

    Pages of a memory map are released.
    """
    stored: Any
    for start, stored in memory.blocks(features, num_rows):
        if not isinstance(stored, Tensor):
            stored = torch.from_numpy(np.array(stored, dtype=np.float32))
        yield slice(start, start + len(stored)), stored.to(device, torch.float32)


@dataclass(frozen=True)
class Standardisation:
    """Mean and reciprocal standard deviation of every column, float64 [D]; 0 for a constant column."""

    mean: Tensor
    scale: Tensor

    def __call__(self, block: Tensor) -> Tensor:
        """float32 [B, D] → (block − mean) · scale, float32."""
        return ((block.double() - self.mean) * self.scale).float()


def standardisation(features: Features, device: torch.device) -> Standardisation:
    """Of all rows, in float64. Raises DataError for numbers that are not finite.

    A column is constant if it varies by no more than float32 can tell.
    """
    num_rows = block_rows(features.shape[1])
    sums = torch.zeros(features.shape[1], dtype=torch.float64, device=device)
    largest = torch.zeros_like(sums)
    for _, block in blocks(features, device, num_rows):
        sums += block.sum(dim=0, dtype=torch.float64)
        largest = torch.maximum(largest, block.abs().amax(dim=0).double())
    check_finite(sums, "training")
    mean = sums / len(features)
    squares = torch.zeros_like(sums)
    for _, block in blocks(features, device, num_rows):
        squares += (block.double() - mean).square().sum(dim=0)
    std = (squares / len(features)).sqrt()
    varies = std > torch.finfo(torch.float32).eps * largest
    return Standardisation(mean, torch.where(varies, 1 / std, 0.0))


def check_finite(values: Tensor, split: str) -> None:
    """Raise DataError if any of the values is NaN or infinite."""
    if not bool(torch.isfinite(values).all()):
        raise DataError(
            f"the features of the {split} images contain NaN or infinite numbers, expected finite ones: "
            "the model has diverged, or its features exceed float16; embed again with --dtype float32"
        )
