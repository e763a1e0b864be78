"""On a GPU: embedding and both stages of training against the limit, and what that means for ImageNet.

The limit is the same model fed with random tensors that are on the device already; for embedding, in
float16, in channels-last memory and compiled by torch.compile. The photographs have ImageNet's usual size and
are stored as JPEGs, so where loading bounds the rate, it is as it would be there: the cores then decide, and
a machine with more of them for each GPU comes nearer to the limit. For embedding, as many photographs are
also stored as pixels, 256 × 256 of them, which load faster.
"""

import os
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
from rela.data.loader import ViewLoader, in_batches
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
    num_photos: int = 3072
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
    side = round(sizes.image_size * 256 / 224)
    pixels = beton_of(
        write_photos(scratch / f"photos-{side}x{side}", sizes.num_photos, side, side), "raw"
    )
    embeddings, others = [], []
    for prior in sizes.priors:
        from_jpegs, from_pixels = _embedding(prior, sizes, (beton, pixels), device, rounds)
        embeddings.append(from_jpegs)
        others.append(from_pixels)
    trained = [_training(stage, sizes, beton, device, rounds) for stage in (1, 2)]
    stages, memory = [found for found, _ in trained], [peak for _, peak in trained]
    hours = imagenet(sizes.priors, embeddings, stages)
    return [*embeddings, *others, *stages, *memory, *hours]


def _embedding(
    prior: str, sizes: Sizes, stored: tuple[Beton, Beton], device: str, rounds: int
) -> Iterator[Comparison]:
    """From JPEGs and from pixels."""

    def embedder_of(engine: str) -> Embedder:
        embedder = Embedder(
            build_backbone(prior, sizes.image_size, seed=0),
            preprocessing_for(sizes.image_size), device, sizes.embed_batch,
        )  # fmt: skip
        embedder.try_float16(stored[0])
        if device == "cuda":
            embedder.choose_compiled(stored[0], _IMAGENET_IMAGES, engine, print)
        return embedder

    embedder, faster = embedder_of("eager"), embedder_of("compiled")
    print(f"{prior}: {faster.engine.words}")
    rows = np.arange(len(stored[0]))
    shape = (sizes.embed_batch, 3, sizes.image_size, sizes.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    num_batches = -(-len(rows) // sizes.embed_batch)

    def forward(features: Callable[[Tensor], Tensor]) -> float:
        @torch.inference_mode()
        def work() -> None:
            for _ in range(num_batches):
                found = features(images)
            found.cpu()  # waits for the device

        return rate(num_batches * sizes.embed_batch, work)

    def load(beton: Beton) -> float:
        loader = embedder._loader(beton, in_batches(rows, sizes.embed_batch), None)
        return rate(len(rows), lambda: deque(loader, 0))

    fastest = _compiled(prior, sizes, device)
    cores = f"loading alone, {len(os.sched_getaffinity(0))} cores"
    for kind, beton in zip(("JPEGs", "pixels"), stored, strict=True):
        sides = {
            "rela embed": partial(_embed, embedder, beton, rows),
            "rela embed, compiled": partial(_embed, faster, beton, rows),
            "its forward pass": partial(forward, embedder.features),
            "limit": partial(forward, fastest),
            cores: partial(load, beton),
        }
        title = f"embedding, {prior} at {sizes.image_size} px from {kind}, in {embedder.arithmetic}"
        found = compare(title, "img/s", sides, rounds)
        _, _, _, at_most, loaded = (statistics.median(rates) for rates in found.rates.values())
        bound, side = (
            ("loading", cores) if loaded < at_most else (f"the device ({device})", "limit")
        )
        yield replace(found, title=f"{title}: bound by {bound}", targets={side: 0.95})


def _embed(embedder: Embedder, beton: Beton, rows: NDArray[np.int64]) -> float:
    return rate(len(rows), lambda: embedder(beton, rows))


def _compiled(prior: str, sizes: Sizes, device: str) -> Callable[[Tensor], Tensor]:
    """uint8 images → features by the compiled model in float16; as it is on the CPU."""
    network = build_backbone(prior, sizes.image_size, seed=0).eval().to(device)
    if device == "cpu":
        return lambda images: network(images.float())
    network = network.half().to(memory_format=torch.channels_last)
    compiled: Callable[[Tensor], Tensor] = torch.compile(
        lambda images: network(images.half().div(255)).float()
    )
    return compiled


def _training(
    stage: int, sizes: Sizes, beton: Beton, device: str, rounds: int
) -> tuple[Comparison, Figure]:
    """The comparison, and the most memory of the device that was in use."""
    plan = byol_plan(sizes.model, sizes.image_size, sizes.train_batch)
    width = feature_dim(build_backbone(plan.model, plan.image_size, seed=0), plan.image_size)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
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
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    memory = Figure(f"{title}: peak memory of the device", "GiB", [peak])
    return replace(found, title=f"{title}: bound by {bound}"), memory


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
