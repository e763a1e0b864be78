"""Random views: distributions of crop, flip and colour, with published values."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a workspace is read without NumPy
    import numpy as np
    from numpy.typing import NDArray

# Every view and every evaluation is normalised with ImageNet's channel statistics, in [0, 1] units.
NORMALIZE_MEAN = (0.485, 0.456, 0.406)
NORMALIZE_STD = (0.229, 0.224, 0.225)
_LARGEST_UNBLURRED = 32  # pixels; recipes for CIFAR do not blur


@dataclass(frozen=True)
class View:
    """A random view: random resized crop → flip → colour jitter → gray → blur → solarize.

    `scale` is the crop's share of the area, `ratio` its aspect ratio; jitter strengths are as in
    torchvision's ColorJitter; `sigma` is the range of the blur's standard deviation in pixels.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    gray_probability: float = 0.2
    blur_probability: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.0

    def row(self) -> list[float]:
        """The columns SPEC_* of rela.data.kernels.draws."""
        return [
            self.size, *self.scale, *self.ratio, self.flip_probability, self.jitter_probability,
            self.brightness, self.contrast, self.saturation, self.hue, self.gray_probability,
            self.blur_probability, *self.sigma, self.solarize_probability,
        ]  # fmt: skip


def specification(views: tuple[View, ...]) -> "NDArray[np.float64]":
    """The argument of `rela.data.kernels.samples.load_views`: float64 [len(views), 16]."""
    import numpy as np

    return np.array([view.row() for view in views], np.float64)


def stage1_views(size: int) -> tuple[View, View]:
    """Two views for regressing targets (ReLA, arXiv 2405.14669): mild crops, strong colour."""
    view = View(
        size, scale=(0.5, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2
    )  # fmt: skip
    return view, view


def least_scale(size: int) -> float:
    """Smallest share of the image in a view: 0.5 up to 32 pixels, 0.08 as published from 224 on.

    In between it falls with the logarithm of the size. Crops from 8 % of the area show 8 of 28 pixels a side.
    """
    sides = math.log(224 / 32)
    share = min(1.0, max(0.0, math.log(224 / size) / sides))
    return 0.08 + share * (0.5 - 0.08)


def is_small(size: int) -> bool:
    """Whether views of `size` pixels are not blurred, as in every recipe for CIFAR."""
    return size <= _LARGEST_UNBLURRED
