"""Share of a real training's time spent waiting for batches, as the training itself counts it.

On a CPU loading takes cores from the arithmetic, too; the wait is what overlapping does not hide.
"""

import json
import tempfile
from pathlib import Path

import torch

from benchmarks.speed.comparison import Figure
from benchmarks.speed.photos import write_photos
from rela.stages.convert import convert
from rela.stages.requests import Convert, Train
from rela.stages.train.train import train
from rela.stages.workspace.workspace import Workspace
from rela.training.run_directory import METRICS_FILE
from rela.training.settings import TrainSettings

_LARGEST_SHARE = 0.02


def run(rounds: int, scratch: Path) -> list[Figure]:
    if torch.cuda.is_available():
        folder = write_photos(scratch / "wait-375x500", 4096, 375, 500)
        shares = _wait_shares(folder, "resnet50", 224, 256, rounds)
        return [Figure("ResNet-50 at 224 px on the GPU, BYOL: data wait", "of the time", shares)]
    folder = write_photos(scratch / "wait-64x64", 512, 64, 64, ".png")
    shares = _wait_shares(folder, "resnet18", 64, 64, rounds)
    title = "ResNet-18 at 64 px on the CPU, BYOL: data wait"
    return [Figure(title, "of the time", shares, _LARGEST_SHARE)]


def _wait_shares(folder: Path, model: str, size: int, batch_size: int, epochs: int) -> list[float]:
    """Waiting / elapsed of every epoch after the first, in which everything warms up."""
    with tempfile.TemporaryDirectory() as directory:
        workspace = Workspace(Path(directory))
        settings = TrainSettings(
            prior="none", model=model, image_size=size, batch_size=batch_size, epochs=1 + epochs
        )
        silent = {"say": lambda line: None}
        dataset = convert(workspace, Convert(folder, val_fraction=0.0), **silent).artifact
        finished = train(workspace, Train(dataset.name, **vars(settings)), **silent).artifact
        records = (finished.path / METRICS_FILE).read_text().splitlines()
    return [json.loads(record)["data_wait_share"] for record in records[1:]]
