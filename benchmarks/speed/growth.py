"""Seconds per image as a data set grows: the last images should cost what the first ones did.

Tiny images, so that bookkeeping is most of the work. Starting processes and building the prior cost the
same whatever follows; they are taken out by comparing increments: from 1,000 images to 10,000, and on
to 100,000. Starting takes longer than the first increment and varies, so the small sizes are timed as
often as it takes to do as many images as the large one, and their medians compared.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.speed.comparison import Figure
from benchmarks.speed.photos import noise, write_photos
from rela.data.beton.reader import open_beton
from rela.data.loader import ViewLoader
from rela.data.views import stage1_views
from rela.priors import PriorRequest
from rela.stages.convert import convert
from rela.stages.embed.embed import embed
from rela.stages.requests import Convert
from rela.stages.workspace.workspace import Workspace

_SIZES = (1_000, 10_000, 100_000)
_REPEATS = (10, 10, 1)
_SIDE, _VIEW, _BATCH, _PRIOR = 8, 32, 128, "random:mobilenet_v3_small"
_LIMIT_PERCENT = 10


def run(rounds: int, scratch: Path) -> list[Figure]:
    folders = [
        write_photos(scratch / f"noise-{size}", size, _SIDE, _SIDE, ".png", noise)
        for size in _SIZES
    ]
    growth: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        _timed(Path(directory), folders[0])  # whatever happens only once in a process
    for _ in range(rounds):
        timed: list[list[dict[str, float]]] = [[] for _ in folders]
        for repeat in range(max(_REPEATS)):
            for folder, times, repeats in zip(folders, timed, _REPEATS, strict=True):
                if repeat < repeats:
                    with tempfile.TemporaryDirectory(dir=scratch) as directory:
                        times.append(_timed(Path(directory), folder))
        for job in timed[0][0]:
            seconds = [statistics.median(each[job] for each in times) for times in timed]
            growth.setdefault(job, []).append(_growth_percent(seconds))
    what = "seconds per image, 10,000 to 100,000 images against 1,000 to 10,000"
    return [
        Figure(f"{job}: {what}", "% more", values, _LIMIT_PERCENT) for job, values in growth.items()
    ]


def _growth_percent(seconds: list[float]) -> float:
    """How much more an image costs in the second increment than in the first."""
    early, late = np.diff(seconds) / np.diff(_SIZES)
    return float(100 * (late / early - 1))


def _timed(directory: Path, folder: Path) -> dict[str, float]:
    """Seconds of converting, embedding, and of one training epoch's loading."""
    workspace, silent = Workspace(directory), list[str]().append
    start = time.perf_counter()
    dataset = convert(workspace, Convert(folder, val_fraction=0.0), silent).artifact
    converted = time.perf_counter()
    embed(workspace, dataset, PriorRequest(_PRIOR, image_size=_SIDE), say=silent)
    embedded = time.perf_counter()
    loader = ViewLoader(open_beton(dataset.beton_path("train")), stage1_views(_VIEW), _BATCH)
    epochs = _SIZES[-1] // len(loader.rows)  # as many images from every size
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for _ in loader:
            pass
    loaded = (time.perf_counter() - embedded) / epochs
    return {"convert": converted - start, "embed": embedded - converted, "train loading": loaded}
