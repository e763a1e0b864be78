"""Stock FFCV, in a process of its own: it hangs where it fails, and changes torch's threads.

Two pipelines decode every image twice. Hue, gray, blur and solarize are not among FFCV's operations, so
its users put torchvision's modules behind `ToTorchImage`; those draw once for a whole batch.
"""

import argparse
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import v2

from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD, View

_HANG_SECONDS = 300.0  # the first answer has the compiling in it
_BLUR_PIXELS = 9  # narrower, so faster, than the 23 of the published recipes
COLOURS = {
    "none": "crop and flip",
    "own": "crop, flip, its brightness, contrast and saturation",
    "torchvision": "crop, flip, torchvision's colour operations by the batch",
}


class FFCVProcess:
    """FFCV's loader over one beton; calling it runs an epoch and gives images per second."""

    def __init__(self, beton: Path, views: tuple[View, ...], batch_size: int, colour: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, beton, views, batch_size, colour)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self) -> float:
        self._connection.send("epoch")
        if not self._connection.poll(_HANG_SECONDS):
            self.close()
            raise RuntimeError(f"FFCV gave no epoch within {_HANG_SECONDS:g} s")
        rate: float = self._connection.recv()  # EOFError if it crashed
        return rate

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def ffcv_loader(beton: Path, views: tuple[View, ...], batch_size: int, colour: str) -> Any:
    """A pipeline for each view, as FFCV's documentation writes them; `colour` of COLOURS."""
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline import PipelineSpec
    from ffcv.transforms import (
        RandomBrightness,
        RandomContrast,
        RandomHorizontalFlip,
        RandomSaturation,
        ToTensor,
        ToTorchImage,
    )

    def pipeline(view: View) -> PipelineSpec:
        size = (view.size, view.size)
        decoder = RandomResizedCropRGBImageDecoder(size, view.scale, view.ratio)
        steps: list[Any] = [RandomHorizontalFlip(view.flip_probability)]
        if colour == "own":
            steps += [
                RandomBrightness(view.brightness, view.jitter_probability),
                RandomContrast(view.contrast, view.jitter_probability),
                RandomSaturation(view.saturation, view.jitter_probability),
            ]
        steps += [ToTensor(), ToTorchImage()]
        if colour == "torchvision":
            steps += _by_the_batch(view)
        to_float = v2.ToDtype(torch.float32, scale=True)
        steps += [to_float, v2.Normalize(NORMALIZE_MEAN, NORMALIZE_STD)]
        return PipelineSpec("image", decoder, steps)

    pipelines: dict[str, Any] = {"label": None, "index": None, "image": pipeline(views[0])}
    for number, view in enumerate(views[1:], 2):
        pipelines[f"image_{number}"] = pipeline(view)
    return Loader(
        str(beton),
        batch_size,
        num_workers=len(os.sched_getaffinity(0)),
        order=OrderOption.RANDOM,
        drop_last=True,
        pipelines=pipelines,
    )


def _by_the_batch(view: View) -> list[Any]:
    jitter = v2.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
    blur = v2.GaussianBlur(_BLUR_PIXELS, view.sigma)
    return [
        v2.RandomApply([jitter], view.jitter_probability),
        v2.RandomGrayscale(view.gray_probability),
        v2.RandomApply([blur], view.blur_probability),
        v2.RandomSolarize(128, view.solarize_probability),
    ]


def _serve(
    connection: Connection, beton: Path, views: tuple[View, ...], batch_size: int, colour: str
) -> None:
    loader = ffcv_loader(beton, views, batch_size, colour)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        start = time.perf_counter()
        num_images = sum(len(batch[0]) for batch in loader)
        connection.send(num_images / (time.perf_counter() - start))


def _first_batch() -> None:
    """`python -m benchmarks.speed.ffcv_views BETON SIZE COLOUR`: end after the first batch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("beton", type=Path)
    parser.add_argument("size", type=int)
    parser.add_argument("colour", choices=COLOURS)
    arguments = parser.parse_args()
    views = (View(arguments.size), View(arguments.size))
    next(iter(ffcv_loader(arguments.beton, views, 64, arguments.colour)))
    os._exit(0)  # its threads would finish the epoch


if __name__ == "__main__":
    _first_batch()
