"""A plugin of rela: a prior, `plugin:colours`, and a model to train, `plugin:small-net`."""

from torch import nn
from torchvision import transforms


def colours() -> tuple[nn.Module, transforms.Compose]:
    """A prior, and what it expects to see. A real one loads its weights here."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    scale = transforms.Normalize([0.5] * 3, [0.5] * 3)
    steps = [transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor(), scale]
    return network, transforms.Compose(steps)


def small_net() -> nn.Module:
    """A model to train: images [B, 3, S, S] → features [B, 64]; its weights are those that torch draws."""
    layers = nn.Conv2d(3, 64, 3, 2), nn.BatchNorm2d(64), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
