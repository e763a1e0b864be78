"""Cached representations as a PyTorch data set."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rela.named_representations import NamedRepresentations


class VectorDataset(Dataset[tuple[Tensor, int]]):
    """Item i: the vector of image i, float32 [D] (or [K, D] of K crops), and its label."""

    def __init__(self, representations: NamedRepresentations) -> None:
        self.representations = representations

    def __len__(self) -> int:
        return len(self.representations)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        vector = self.representations.vector(index).astype(np.float32)
        return torch.from_numpy(vector), int(self.representations.labels[index])
