"""`rela embed` of ResNet-18 at 224 px: against the plain way, and against the forward pass alone.

The plain way is that of torchvision's examples: ImageFolder, PIL, its transforms, a DataLoader with as
many workers as cores, the model in evaluation mode, one array saved. The limit is the same model, as
`rela embed` holds it, fed again and again with one batch of random numbers.
"""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.speed.comparison import Comparison, compare, rate
from benchmarks.speed.photos import write_photos
from benchmarks.speed.torchvision_views import TO_FLOAT
from rela.models.backbones import build_backbone
from rela.models.preprocessing import preprocessing_for
from rela.priors import PriorRequest
from rela.representations.embedder import Embedder
from rela.stages.convert import convert
from rela.stages.embed.embed import embed
from rela.stages.priors.identify import identify
from rela.stages.requests import Convert
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.workspace import Workspace

ARCH, SIZE = "resnet18", 224
NUM_IMAGES, HEIGHT, WIDTH = 384, 375, 500
BATCH_SIZE = EmbedSettings().batch_size


def run(rounds: int, scratch: Path) -> list[Comparison]:
    """Images per second end to end, and once the model is built."""
    folder = write_photos(scratch / "embedding" / "photos", NUM_IMAGES, HEIGHT, WIDTH)
    workspace = Workspace(scratch / "embedding" / "workspace")
    dataset = convert(workspace, Convert(folder, name="photos", val_fraction=0.0), _quiet).artifact
    request = PriorRequest(f"random:{ARCH}", image_size=SIZE)
    building: list[
        float
    ] = []  # seconds of every run: the prior and the check that it is the recorded one

    def ours() -> float:
        shutil.rmtree(workspace.representations_dir, ignore_errors=True)
        start = time.perf_counter()
        identify(workspace, request).load()
        building.append(time.perf_counter() - start)
        return NUM_IMAGES / embed(workspace, dataset, request, say=_quiet).seconds

    plain, limit = "ImageFolder, DataLoader", "forward pass alone"
    output = scratch / "embedding" / "plain.npy"
    sides = {
        "rela embed": ours,
        plain: lambda: rate(NUM_IMAGES, lambda: plainly(folder, output)),
        limit: forward_rate,
    }
    every = compare("", "images/s", sides, rounds)
    what = f"embed, {ARCH} at {SIZE} px, batch {BATCH_SIZE}"
    source = f"{NUM_IMAGES} JPEGs of {HEIGHT}×{WIDTH} pixels"
    everything = f"{what}: everything from {source} (ours in a beton) to the file"
    built = [
        NUM_IMAGES / (NUM_IMAGES / one - seconds)
        for one, seconds in zip(every.ours, building[-rounds:], strict=True)
    ]
    rates = {"rela embed": built, limit: every.rates[limit]}
    return [
        every.of(everything, ["rela embed", plain], {plain: 1.3}),
        Comparison(f"{what}: the same less building the model", every.unit, rates, {limit: 0.95}),
    ]


def plainly(folder: Path, output: Path) -> None:
    """Embed as torchvision's examples do."""
    model = build_backbone(ARCH, SIZE, seed=0).eval().to(_device())
    crop = [transforms.Resize(round(SIZE / 0.875)), transforms.CenterCrop(SIZE)]
    images = ImageFolder(str(folder), transforms.Compose([*crop, *TO_FLOAT]))
    loader = DataLoader(
        images, BATCH_SIZE, num_workers=len(os.sched_getaffinity(0)), pin_memory=_device() == "cuda"
    )
    features = []
    with torch.inference_mode(), _autocast():
        for pixels, _ in loader:
            features.append(model(pixels.to(_device(), non_blocking=True)).float().cpu())
    np.save(output, torch.cat(features).numpy().astype(np.float16))


def forward_rate() -> float:
    """NUM_IMAGES images through the model, nothing to load or to keep."""
    backbone: nn.Module = build_backbone(ARCH, SIZE, seed=0)
    embedder = Embedder(backbone, preprocessing_for(SIZE), batch_size=BATCH_SIZE)
    pixels = torch.randn(BATCH_SIZE, 3, SIZE, SIZE, device=embedder.device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        for _ in range(NUM_IMAGES // BATCH_SIZE):
            output = embedder.backbone(pixels)
        output.cpu()

    with torch.inference_mode(), _autocast():
        return rate(NUM_IMAGES, forward)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _autocast() -> torch.autocast:
    return torch.autocast(_device(), dtype=torch.float16, enabled=_device() == "cuda")


def _quiet(text: str) -> None:
    pass
