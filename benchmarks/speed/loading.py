"""Two augmented views per image, from stored bytes to normalised float tensors in memory.

The views are BYOL's: crop, flip, jitter, gray, blur, solarize (at 32 pixels without blur, as for CIFAR).
"""

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.betons import beton_of
from benchmarks.speed.comparison import Comparison, compare
from benchmarks.speed.ffcv_views import COLOURS, FFCVProcess
from benchmarks.speed.photos import write_photos
from benchmarks.speed.torchvision_views import array_loader, folder_loader
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
    views = byol_views(224)
    jpeg, raw = beton_of(folder, "jpg"), beton_of(folder, "raw")
    pil = "ImageFolder, PIL, DataLoader"
    ffcv = {
        f"FFCV: {COLOURS[colour]}": FFCVProcess(jpeg.path, views, _PHOTO_BATCH, colour)
        for colour in ("torchvision", "none")
    }
    try:
        measured = compare(
            "",
            _UNIT,
            {
                "rela, JPEG": _rela(jpeg, views, _PHOTO_BATCH),
                "rela, raw": _rela(raw, views, _PHOTO_BATCH),
                pil: _other(folder_loader(folder, views, _PHOTO_BATCH), _PHOTO_BATCH),
                **ffcv,
            },
            rounds,
        ).rates
    finally:
        for process in ffcv.values():
            process.close()
    size = f"{_HEIGHT}×{_WIDTH} pixels → two views of 224"
    faithful, plain = ffcv
    return [
        Comparison(
            f"JPEGs of {size}",
            _UNIT,
            {name: measured[name] for name in ("rela, JPEG", pil, faithful, plain)},
            {pil: 4, faithful: 3},
        ),
        Comparison(
            f"The same stored raw ({pil}: from JPEG files)",
            _UNIT,
            {name: measured[name] for name in ("rela, raw", pil)},
            {pil: 7},
        ),
    ]


def _small_images(rounds: int, scratch: Path) -> Comparison:
    side = _SMALL_SIDE
    folder = write_photos(scratch / f"photos-{side}x{side}", _NUM_SMALL, side, side, ".png")
    beton, views = beton_of(folder, "raw"), byol_views(side)
    pixels = np.stack([beton.data[start : start + side * side * 3] for start in beton.pointers])
    pixels = pixels.reshape(len(beton), side, side, 3)
    pil = "array, PIL, DataLoader"
    return compare(
        f"Raw images of {side}×{side} pixels → two views of {side}",
        _UNIT,
        {
            "rela": _rela(beton, views, _SMALL_BATCH),
            pil: _other(array_loader(pixels, views, _SMALL_BATCH), _SMALL_BATCH),
        },
        rounds,
        {pil: 40},
    )


def _rela(beton: Beton, views: tuple[View, ...], batch_size: int) -> Callable[[], float]:
    """Our loader, and the normalisation that training does on its device."""
    loader = ViewLoader(beton, views, batch_size)
    normalization = Normalization()
    numbers = itertools.count()

    def epoch() -> int:
        loader.set_epoch(next(numbers))
        for batch in loader:
            for view in batch["views"]:
                normalization(view)
        return len(loader) * batch_size

    return lambda: _rate(epoch)


def _other(loader: Iterable, batch_size: int) -> Callable[[], float]:
    return lambda: _rate(lambda: sum(batch_size for _ in loader))


def _rate(epoch: Callable[[], int]) -> float:
    """Images per second of as many epochs as take a second or more."""
    start = time.perf_counter()
    num_images = 0
    while (seconds := time.perf_counter() - start) < _LEAST_SECONDS:
        num_images += epoch()
    return num_images / seconds
