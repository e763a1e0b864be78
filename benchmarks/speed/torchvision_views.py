"""What one would otherwise run: PIL images, torchvision's transforms, a DataLoader with workers."""

import os

import numpy as np
import torch
from lightly.transforms import GaussianBlur
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from rela.data.beton.reader import Beton
from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD, View

TO_FLOAT = [transforms.ToTensor(), transforms.Normalize(NORMALIZE_MEAN, NORMALIZE_STD)]


def transform_of(view: View) -> transforms.Compose:
    """The view as torchvision and lightly write it; what would never happen is left out."""
    jitter = transforms.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
    steps = [
        transforms.RandomResizedCrop(view.size, view.scale, view.ratio),
        transforms.RandomHorizontalFlip(view.flip_probability),
        transforms.RandomApply([jitter], view.jitter_probability),
        transforms.RandomGrayscale(view.gray_probability),
    ]
    if view.blur_probability:
        steps.append(GaussianBlur(prob=view.blur_probability, sigmas=view.sigma))
    if view.solarize_probability:
        steps.append(transforms.RandomSolarize(128, view.solarize_probability))
    return transforms.Compose([*steps, *TO_FLOAT])


class Views:
    """One PIL image → its views."""

    def __init__(self, views: tuple[View, ...]) -> None:
        self.transforms = [transform_of(view) for view in views]

    def __call__(self, image: Image.Image) -> list[Tensor]:
        return [transform(image) for transform in self.transforms]


class ArrayImages(Dataset):
    """Raw images in memory, as torchvision's CIFAR10 keeps them: an array, a PIL image on demand."""

    def __init__(self, beton: Beton, side: int, transform: Views) -> None:
        pixels = [beton.data[start : start + side * side * 3] for start in beton.pointers]
        self.pixels, self.transform = np.stack(pixels).reshape(-1, side, side, 3), transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        return self.transform(Image.fromarray(self.pixels[index])), 0


def loader_of(dataset: Dataset, batch_size: int) -> DataLoader:
    """Workers for all cores, kept from epoch to epoch; seeded, so that every round draws its own."""
    return DataLoader(
        dataset, batch_size, shuffle=True, drop_last=True, persistent_workers=True,
        num_workers=len(os.sched_getaffinity(0)), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
