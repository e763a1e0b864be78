"""`rela convert` against FFCV's own writer, as many workers as cores.

Either runs in a process of its own, as light as that of the command, imports not counted: FFCV's waits
for ever when a worker fails.
"""

import os
import shutil
from pathlib import Path

from benchmarks.speed.comparison import Comparison, compare, rate
from benchmarks.speed.own_process import in_own_processes
from benchmarks.speed.photos import write_photos

NUM_IMAGES, HEIGHT, WIDTH = 3000, 375, 500
MAX_SIDE = 256
_TIMEOUT_SECONDS = 300.0


def run(rounds: int, scratch: Path) -> list[Comparison]:
    """Images per second, files' bytes kept and files' pixels encoded again."""
    folder = write_photos(scratch / "converting" / "photos", NUM_IMAGES, HEIGHT, WIDTH)
    kept = (
        f"convert, {NUM_IMAGES:,} JPEGs of {HEIGHT}×{WIDTH} pixels: ours checks and digests them and "
        "stores their bytes, FFCV encodes them again"
    )
    shrunk = f"the same, longer side at most {MAX_SIDE} pixels: both shrink and encode"
    sides = {"rela convert": by_rela, "FFCV DatasetWriter": by_ffcv}
    results = []
    for title, max_side in ((kept, None), (shrunk, MAX_SIDE)):
        with in_own_processes(sides, folder, max_side, timeout_seconds=_TIMEOUT_SECONDS) as running:
            targets = {"FFCV DatasetWriter": 0.9}
            results.append(compare(title, "images/s", running, rounds, targets))
    return results


def by_rela(folder: Path, max_side: int | None) -> float:
    """What `rela convert` does: check, digest, store, digest the result, make it durable."""
    from rela.stages.convert import convert
    from rela.stages.requests import Convert
    from rela.stages.workspace.workspace import Workspace

    output = _empty(folder)
    request = Convert(
        folder, workers=len(os.sched_getaffinity(0)), max_side=max_side, val_fraction=0.0
    )

    return rate(NUM_IMAGES, lambda: convert(Workspace(output), request, lambda line: None))


def by_ffcv(folder: Path, max_side: int | None) -> float:
    """FFCV's writer as its documentation shows it."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    path = _empty(folder) / "train.beton"
    path.parent.mkdir()
    image = RGBImageField(write_mode="jpg", max_resolution=max_side, jpeg_quality=90)
    cores = len(os.sched_getaffinity(0))
    writer = DatasetWriter(str(path), {"image": image, "label": IntField()}, num_workers=cores)
    return rate(NUM_IMAGES, lambda: writer.from_indexed_dataset(ImageFolder(str(folder))))


def _empty(folder: Path) -> Path:
    """Where to write, with nothing of an earlier round."""
    output = folder.with_name("output")
    shutil.rmtree(output, ignore_errors=True)
    return output
