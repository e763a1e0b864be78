"""Two augmented views per image, from stored bytes to normalised float tensors in memory.

The views are BYOL's: crop, flip, jitter, gray, blur, solarize (at 32 pixels without blur, as for CIFAR).
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.speed.comparison import Comparison, compare, rate
from benchmarks.speed.ffcv_views import COLOURS, HANG_SECONDS, images_per_second
from benchmarks.speed.own_process import in_own_processes
from benchmarks.speed.photos import beton_of, write_photos
from benchmarks.speed.torchvision_views import ArrayImages, Views, loader_of
from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.data.memory import keep_freed_memory
from rela.data.views import View
from rela.methods.byol import byol_views
from rela.models.normalization import Normalization

_UNIT = "images/s, two views each"
_NUM_PHOTOS, _HEIGHT, _WIDTH, _PHOTO_BATCH = 512, 375, 500, 64
_NUM_SMALL, _SMALL_SIDE, _SMALL_BATCH = 8192, 32, 256
_LEAST_SECONDS = 1.0  # of a measurement; epochs are repeated until it has lasted so long


def run(rounds: int, scratch: Path) -> list[Comparison]:
    keep_freed_memory()  # as training does, for all sides in this process
    num_threads = torch.get_num_threads()
    # loading has all cores; several threads that normalise would wait for each other
    torch.set_num_threads(1)
    try:
        return [*_photos(rounds, scratch), _small_images(rounds, scratch)]
    finally:
        torch.set_num_threads(num_threads)


def _photos(rounds: int, scratch: Path) -> list[Comparison]:
    folder = write_photos(scratch / "photos-375x500", _NUM_PHOTOS, _HEIGHT, _WIDTH)
    views, batch_size = byol_views(224), _PHOTO_BATCH
    jpeg, raw = beton_of(folder, "jpg"), beton_of(folder, "raw")
    pil, faithful, plain = (
        "ImageFolder, PIL, DataLoader", *(f"FFCV: {COLOURS[c]}" for c in ("torchvision", "none"))
    )  # fmt: skip
    ffcv = {
        faithful: functools.partial(images_per_second, colour="torchvision"),
        plain: functools.partial(images_per_second, colour="none"),
    }
    arguments = (jpeg.path, views, batch_size)
    with in_own_processes(ffcv, *arguments, timeout_seconds=HANG_SECONDS) as theirs:
        sides = {
            "rela, JPEG": _rela(jpeg, views, batch_size),
            "rela, raw": _rela(raw, views, batch_size),
            pil: _other(loader_of(ImageFolder(str(folder), Views(views)), batch_size), batch_size),
            **theirs,
        }
        every = compare("", _UNIT, sides, rounds)
    size = f"{_HEIGHT}×{_WIDTH} pixels → two views of 224"
    same_raw = f"The same stored raw ({pil}: from JPEG files)"
    return [
        every.of(f"JPEGs of {size}", ["rela, JPEG", pil, faithful, plain], {pil: 4, faithful: 3}),
        every.of(same_raw, ["rela, raw", pil], {pil: 7}),
    ]


def _small_images(rounds: int, scratch: Path) -> Comparison:
    side, batch_size = _SMALL_SIDE, _SMALL_BATCH
    folder = write_photos(scratch / f"photos-{side}x{side}", _NUM_SMALL, side, side, ".png")
    beton, views = beton_of(folder, "raw"), byol_views(side)
    images = ArrayImages(beton, side, Views(views))
    pil = "array, PIL, DataLoader"
    sides = {
        "rela": _rela(beton, views, batch_size),
        pil: _other(loader_of(images, batch_size), batch_size),
    }
    title = f"Raw images of {side}×{side} pixels → two views of {side}"
    return compare(title, _UNIT, sides, rounds, {pil: 40})


def _rela(beton: Beton, views: tuple[View, ...], batch_size: int) -> Callable[[], float]:
    """Our loader, and the normalisation that training does on its device."""
    loader = ViewLoader(beton, views, batch_size)
    normalization = Normalization()
    numbers = itertools.count()

    def epoch() -> None:
        loader.set_epoch(next(numbers))
        for batch in loader:
            for view in batch["views"]:
                normalization(view)

    return lambda: rate(len(loader) * batch_size, epoch, _LEAST_SECONDS)


def _other(loader: DataLoader, batch_size: int) -> Callable[[], float]:
    return lambda: rate(len(loader) * batch_size, lambda: deque(loader, 0), _LEAST_SECONDS)
