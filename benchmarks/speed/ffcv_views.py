"""Stock FFCV, for a process of its own: it hangs where it fails, and changes torch's threads.

Two pipelines decode every image twice. Hue, gray, blur and solarize are not among FFCV's operations, so
its users put torchvision's modules behind `ToTorchImage`; those draw once for a whole batch.
"""

import functools
import os
from collections import deque
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import v2

from benchmarks.speed.comparison import rate
from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD, View

HANG_SECONDS = 300.0  # the first epoch has the compiling in it
_BLUR_PIXELS = 9  # narrower, so faster, than the 23 of the published recipes
COLOURS = {
    "none": "crop and flip",
    "own": "crop, flip, its brightness, contrast and saturation",
    "torchvision": "crop, flip, torchvision's colour operations by the batch",
}


def images_per_second(beton: Path, views: tuple[View, ...], batch_size: int, colour: str) -> float:
    """Of one epoch, always by the same loader."""
    loader = ffcv_loader(beton, views, batch_size, colour)
    return rate(len(loader) * batch_size, lambda: deque(loader, 0))


@functools.cache
def ffcv_loader(beton: Path, views: tuple[View, ...], batch_size: int, colour: str) -> Any:
    """A pipeline for each view, as FFCV's documentation writes them; `colour` of COLOURS."""
    from ffcv import transforms
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline import PipelineSpec

    def pipeline(view: View) -> PipelineSpec:
        size = (view.size, view.size)
        decoder = RandomResizedCropRGBImageDecoder(size, view.scale, view.ratio)
        steps: list[Any] = [transforms.RandomHorizontalFlip(view.flip_probability)]
        if colour == "own":
            steps += [
                transforms.RandomBrightness(view.brightness, view.jitter_probability),
                transforms.RandomContrast(view.contrast, view.jitter_probability),
                transforms.RandomSaturation(view.saturation, view.jitter_probability),
            ]
        steps += [transforms.ToTensor(), transforms.ToTorchImage()]
        if colour == "torchvision":
            jitter = v2.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
            blur = v2.GaussianBlur(_BLUR_PIXELS, view.sigma)
            steps += [
                v2.RandomApply([jitter], view.jitter_probability),
                v2.RandomGrayscale(view.gray_probability),
                v2.RandomApply([blur], view.blur_probability),
                v2.RandomSolarize(128, view.solarize_probability),
            ]
        to_float = v2.ToDtype(torch.float32, scale=True)
        steps += [to_float, v2.Normalize(NORMALIZE_MEAN, NORMALIZE_STD)]
        return PipelineSpec("image", decoder, steps)

    pipelines: dict[str, Any] = {"label": None, "index": None, "image": pipeline(views[0])}
    for number, view in enumerate(views[1:], 2):
        pipelines[f"image_{number}"] = pipeline(view)
    return Loader(
        str(beton), batch_size, num_workers=len(os.sched_getaffinity(0)),
        order=OrderOption.RANDOM, drop_last=True, pipelines=pipelines,
    )  # fmt: skip
