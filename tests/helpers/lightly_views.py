"""What a transform of lightly does, in the words of rela.data.views."""

from collections.abc import Iterator
from typing import Any

import pytest

from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD, View


def view_of(transform: Any, size: int) -> View:
    """The distributions of one view's transform, which crops to `size` pixels."""
    steps = {type(step).__name__: step for step in _steps(transform)}
    crop = steps["RandomResizedCrop"]
    (jitter,) = steps["RandomApply"].transforms
    assert crop.size == (size, size)
    for low, high in (jitter.brightness, jitter.contrast, jitter.saturation):
        assert 1 - low == pytest.approx(high - 1)
    normalize = steps["Normalize"]
    assert (tuple(normalize.mean), tuple(normalize.std)) == (NORMALIZE_MEAN, NORMALIZE_STD)
    assert steps["RandomVerticalFlip"].p == 0
    solarize = steps.get("RandomSolarization")
    return View(
        size,
        scale=crop.scale,
        ratio=crop.ratio,
        flip_probability=steps["RandomHorizontalFlip"].p,
        jitter_probability=steps["RandomApply"].p,
        brightness=jitter.brightness[1] - 1,
        contrast=jitter.contrast[1] - 1,
        saturation=jitter.saturation[1] - 1,
        hue=jitter.hue[1],
        gray_probability=steps["RandomGrayscale"].p,
        blur_probability=steps["GaussianBlur"].prob,
        sigma=steps["GaussianBlur"].sigmas,
        solarize_probability=0.0 if solarize is None else solarize.prob,
    )


def _steps(transform: Any) -> Iterator[Any]:
    """The single steps, out of whatever holds them."""
    if type(transform).__name__ == "Compose":
        for step in transform.transforms:
            yield from _steps(step)
    elif "transform" in vars(transform):
        yield from _steps(transform.transform)
    else:
        yield transform
