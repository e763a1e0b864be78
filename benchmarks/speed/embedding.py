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

from benchmarks.speed.comparison import Comparison, compare
from benchmarks.speed.photos import write_photos
from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD
from rela.models.backbones import build_backbone
from rela.models.preprocessing import preprocessing_for
from rela.priors import PriorRequest
from rela.representations.embedder import Embedder
from rela.stages.convert import convert
from rela.stages.embed.embed import embed
from rela.stages.priors.identify import identify
from rela.stages.requests import Convert
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace

ARCH, SIZE = "resnet18", 224
NUM_IMAGES, HEIGHT, WIDTH = 384, 375, 500
BATCH_SIZE = EmbedSettings().batch_size


def run(rounds: int, scratch: Path) -> list[Comparison]:
    """Images per second end to end, and once the model is built."""
    folder = write_photos(scratch / "embedding" / "photos", NUM_IMAGES, HEIGHT, WIDTH)
    workspace = Workspace(scratch / "embedding" / "workspace")
    dataset = convert(workspace, Convert(folder, name="photos"), _quiet).artifact
    building: list[float] = []  # seconds of every run

    def ours() -> float:
        shutil.rmtree(workspace.representations_dir, ignore_errors=True)
        building.append(seconds_to_build(workspace))
        return NUM_IMAGES / embed_seconds(workspace, dataset)

    plain, limit = "ImageFolder, DataLoader", "forward pass alone"
    every = compare(
        "", "images/s",
        {
            "rela embed": ours,
            plain: lambda: NUM_IMAGES / plain_seconds(folder, scratch / "embedding" / "plain.npy"),
            limit: lambda: NUM_IMAGES / forward_seconds(),
        },
        rounds,
    )  # fmt: skip
    what = f"embed, {ARCH} at {SIZE} px, batch {BATCH_SIZE}"
    source = f"{NUM_IMAGES} JPEGs of {HEIGHT}×{WIDTH} pixels"
    rates = every.rates
    built = [
        NUM_IMAGES / (NUM_IMAGES / rate - seconds)
        for rate, seconds in zip(rates["rela embed"], building[-rounds:], strict=True)
    ]
    return [
        Comparison(
            f"{what}: everything from {source} (ours in a beton) to the file", "images/s",
            {"rela embed": rates["rela embed"], plain: rates[plain]}, {plain: 1.3},
        ),
        Comparison(
            f"{what}: the same less building the model", "images/s",
            {"rela embed": built, limit: rates[limit]}, {limit: 0.95},
        ),
    ]  # fmt: skip


def embed_seconds(workspace: Workspace, dataset: DataSet) -> float:
    """The whole stage: model, loading, forward pass, parts, one file, its digests."""
    return embed(workspace, dataset, _request(), say=_quiet).seconds


def seconds_to_build(workspace: Workspace) -> float:
    """What of that goes before the first image: the prior and the check that it is the recorded one."""
    start = time.perf_counter()
    identify(workspace, _request()).load()
    return time.perf_counter() - start


def plain_seconds(folder: Path, output: Path) -> float:
    start = time.perf_counter()
    model = build_backbone(ARCH, SIZE, seed=0).eval().to(_device())
    transform = transforms.Compose(
        [
            transforms.Resize(round(SIZE / 0.875)),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(NORMALIZE_MEAN, NORMALIZE_STD),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(folder), transform), BATCH_SIZE, num_workers=len(os.sched_getaffinity(0)),
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    features = []
    with torch.inference_mode(), _autocast():
        for images, _ in loader:
            features.append(model(images.to(_device(), non_blocking=True)).float().cpu())
    np.save(output, torch.cat(features).numpy().astype(np.float16))
    return time.perf_counter() - start


def forward_seconds() -> float:
    """NUM_IMAGES images through the model, nothing to load or to keep."""
    backbone: nn.Module = build_backbone(ARCH, SIZE, seed=0)
    embedder = Embedder(backbone, preprocessing_for(SIZE), batch_size=BATCH_SIZE)
    pixels = torch.randn(BATCH_SIZE, 3, SIZE, SIZE, device=embedder.device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), _autocast():
        start = time.perf_counter()
        for _ in range(NUM_IMAGES // BATCH_SIZE):
            output = embedder.backbone(pixels)
        output.cpu()
        return time.perf_counter() - start


def _request() -> PriorRequest:
    return PriorRequest(f"random:{ARCH}", image_size=SIZE)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _autocast() -> torch.autocast:
    return torch.autocast(_device(), dtype=torch.float16, enabled=_device() == "cuda")


def _quiet(text: str) -> None:
    pass
