"""On a GPU: embedding and both stages of training against the limit, and what that means for ImageNet.

The limit is the same model fed with random tensors that are on the device already. The photographs have
ImageNet's usual size and are stored as JPEGs, so where loading bounds the rate, it is as it would be
there: the cores then decide, and a machine with more of them for each GPU comes nearer to the limit.
"""

import os
import statistics
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.comparison import Comparison, Figure, compare, rate
from benchmarks.speed.photos import beton_of, write_photos
from benchmarks.speed.training_steps import (
    byol_plan,
    images_per_second,
    our_rate,
    random_batch,
    two_stage,
)
from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.data.views import stage1_views
from rela.models.backbones import build_backbone, feature_dim
from rela.models.preprocessing import preprocessing_for
from rela.representations.embedder import Embedder

_IMAGENET_IMAGES, _EPOCHS, _BUDGET, _STAGE1_SHARE = 1_281_167, 100, 0.5, 0.5


@dataclass(frozen=True)
class Sizes:
    """What is run; `test_speed_benchmarks` has a small one."""

    priors: tuple[str, ...] = ("resnet18", "resnet50", "vit_b_16")
    model: str = "resnet50"
    image_size: int = 224
    embed_batch: int = 256
    train_batch: int = 256
    num_photos: int = 4096
    photo_height: int = 375
    photo_width: int = 500


def run(rounds: int, scratch: Path) -> list[Comparison | Figure]:
    if not torch.cuda.is_available():
        raise SystemExit("gpu: torch sees no GPU here, and this benchmark is about one")
    return measure(Sizes(), "cuda", rounds, scratch)


def measure(sizes: Sizes, device: str, rounds: int, scratch: Path) -> list[Comparison | Figure]:
    """Everything, on any device."""
    folder = write_photos(
        scratch / f"photos-{sizes.photo_height}x{sizes.photo_width}", sizes.num_photos,
        sizes.photo_height, sizes.photo_width,
    )  # fmt: skip
    beton = beton_of(folder, "jpg")
    embeddings = [_embedding(prior, sizes, beton, device, rounds) for prior in sizes.priors]
    stages = [_training(stage, sizes, beton, device, rounds) for stage in (1, 2)]
    return [*embeddings, *stages, *imagenet(sizes.priors, embeddings, stages)]


def _embedding(prior: str, sizes: Sizes, beton: Beton, device: str, rounds: int) -> Comparison:
    preprocessing = preprocessing_for(sizes.image_size)
    backbone = build_backbone(prior, sizes.image_size, seed=0)
    embedder = Embedder(backbone, preprocessing, device, sizes.embed_batch)
    rows = np.arange(len(beton))
    shape = (sizes.embed_batch, 3, sizes.image_size, sizes.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    num_batches = -(-len(rows) // sizes.embed_batch)

    @torch.inference_mode()
    def forward() -> None:
        for _ in range(num_batches):
            features = embedder.features(images)
        features.cpu()  # waits for the device

    sides = {
        "rela embed": lambda: rate(len(rows), lambda: embedder(beton, rows)),
        "limit": lambda: rate(num_batches * sizes.embed_batch, forward),
    }
    title = f"embedding, {prior} at {sizes.image_size} px"
    return compare(title, "img/s", sides, rounds, {"limit": 0.95})


def _training(stage: int, sizes: Sizes, beton: Beton, device: str, rounds: int) -> Comparison:
    plan = byol_plan(sizes.model, sizes.image_size, sizes.train_batch)
    width = feature_dim(build_backbone(plan.model, plan.image_size, seed=0), plan.image_size)
    targets = torch.randn(len(beton), width).half() if stage == 1 else None
    views = stage1_views(plan.image_size) if stage == 1 else two_stage(plan, 2).method.views()
    loader = ViewLoader(beton, views, sizes.train_batch, targets=targets)
    loader.pin_memory = device == "cuda"
    batch = random_batch(plan, device)
    if stage == 1:
        batch["targets"] = [torch.randn(sizes.train_batch, width, device=device).half()] * 2

    def ours() -> float:
        return images_per_second(two_stage(plan, stage, width), loader, sizes.train_batch)

    num_images = len(loader) * sizes.train_batch
    cores = len(os.sched_getaffinity(0))
    sides = {
        "rela train": ours,
        "limit": lambda: our_rate(plan, stage, batch, len(loader), width),
        f"loading alone, {cores} cores": lambda: rate(num_images, lambda: deque(loader, 0)),
    }
    title = f"stage {stage} of BYOL, {plan.model} at {plan.image_size} px"
    found = compare(title, "img/s", sides, rounds)
    _, at_most, loaded = (statistics.median(rates) for rates in found.rates.values())
    bound = f"loading on {cores} cores" if loaded < at_most else f"the device ({device})"
    return replace(found, title=f"{title}: bound by {bound}")


def imagenet(
    priors: tuple[str, ...], embeddings: list[Comparison], stages: list[Comparison]
) -> list[Figure]:
    """What our rates come to for ImageNet-1K, round by round."""
    embed_hours = [[_IMAGENET_IMAGES / rate / 3600 for rate in e.ours] for e in embeddings]
    figures = [
        Figure(f"embedding {_IMAGENET_IMAGES:,} images, {prior}", "min", [60 * h for h in hours])
        for prior, hours in zip(priors, embed_hours, strict=True)
    ]
    seen = _EPOCHS * _IMAGENET_IMAGES
    full = [seen / stage2 / 3600 for stage2 in stages[1].ours]
    budget = [
        embedding + _BUDGET * seen * (_STAGE1_SHARE / stage1 + (1 - _STAGE1_SHARE) / stage2) / 3600
        for embedding, stage1, stage2 in zip(
            embed_hours[-1], stages[0].ours, stages[1].ours, strict=True
        )
    ]
    saved = [a - b for a, b in zip(full, budget, strict=True)]
    return [
        *figures,
        Figure(f"{_EPOCHS} epochs of all images", "h", full),
        Figure(
            f"{_EPOCHS} epochs of {_BUDGET:.0%} of them, {_STAGE1_SHARE:.0%} of the steps in stage 1, "
            f"embedding with {priors[-1]} included", "h", budget,
        ),
        Figure("which saves", "h", saved),
    ]  # fmt: skip
