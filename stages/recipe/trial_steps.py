"""Speed of this device in training and embedding: a few steps on random images, a second or two each."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rela.data.memory import keep_freed_memory
from rela.data.views import stage1_views
from rela.evaluation.logistic import logistic_probe
from rela.evaluation.protocols import LOGISTIC_PROTOCOL
from rela.methods.optimizers import build_optimizer
from rela.models.backbones import build_backbone
from rela.models.preprocessing import preprocessing_for
from rela.representations.embedder import Embedder, choose_device
from rela.training.handover import AdaptiveHandOver
from rela.training.run import build_method, build_module, resolve_precision
from rela.training.settings import ResolvedSettings
from rela.training.two_stage import TwoStage

_BUDGET_SECONDS = 2.0  # for one figure
_REPETITIONS = 5
_FIRST_BATCH, _GROWTH = 2, 4
_PROBED_ROWS = 4096
_USUAL_PASSES = 400  # over the features, in a search for the penalty and a fit
_AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class _NoLoader:
    """The part of a ViewLoader that a step needs."""

    accumulate, batch_size = 1, 1

    def __len__(self) -> int:
        return 1


def train_seconds_per_image(
    settings: ResolvedSettings, num_classes: int, stages: Iterable[int] = (1, 2)
) -> dict[int, float]:
    """Seconds per image of each stage: forward, backward, optimizer and momentum, without loading.

    For one device's batch; extrapolated from smaller batches if a full step takes too long to try.
    """
    keep_freed_memory()
    device = choose_device("auto")
    precision = resolve_precision(settings.precision)
    found = {}
    for stage in stages:
        with torch.random.fork_rng(devices=[]):
            module = _module(settings, num_classes, stage).to(device)
        method = module.method
        views = stage1_views(settings.image_size) if stage == 1 else method.views()
        optimizer = build_optimizer(settings.optimizer_settings, module.parameters())
        width = method.options.feature_dim

        def step(
            batch_size: int,
            module: TwoStage = module,
            optimizer: torch.optim.Optimizer = optimizer,
            sizes: tuple[int, ...] = tuple(view.size for view in views),
            width: int = width,
        ) -> None:
            labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
            batch: dict[str, Any] = {
                "views": [_images(batch_size, size).to(device) for size in sizes],
                "label": labels,
                "targets": [torch.randn(batch_size, width, device=device)] * len(sizes),
            }
            with torch.autocast(
                device.type, _AUTOCAST.get(precision), enabled=precision in _AUTOCAST
            ):
                loss = module.training_step(batch, 0)["loss"]
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            module.method.update_momentum(None if module.stage == 1 else module.progress)

        found[stage] = _seconds_per_image(step, settings.batch_size // settings.accumulate, device)
    return found


def embed_seconds_per_image(arch: str, image_size: int, batch_size: int, device: str) -> float:
    """Seconds per image of one forward pass in evaluation, without loading."""
    backbone = build_backbone(arch, image_size, seed=0)
    embedder = Embedder(backbone, preprocessing_for(image_size), device, batch_size)

    def step(size: int) -> None:
        with torch.inference_mode():
            embedder.features(_images(size, image_size)).cpu()

    return _seconds_per_image(step, batch_size, embedder.device)


def probe_seconds(num_train: int, width: int, num_classes: int) -> float:
    """Seconds of the linear probe on features [N, `width`], from a few passes over random ones."""
    device = choose_device("auto")
    rows = min(num_train, _PROBED_ROWS)
    features = torch.randn(rows, width, device=device)
    labels = torch.arange(rows, device=device) % num_classes
    short = replace(LOGISTIC_PROTOCOL, penalties=(1.0,), max_iterations=5)
    start = _now(device)
    found = logistic_probe(
        features, labels, features[:1], labels[:1], num_classes, short, device=device
    )
    seconds = (_now(device) - start) / int(found["num_passes"])
    return seconds * _USUAL_PASSES * num_train / rows


def published_image_size(arch: str) -> int | None:
    """Input size in pixels of torchvision's weights for `arch`; None if there are none."""
    import torchvision.models as tv

    try:
        return int(tv.get_model_weights(arch)["DEFAULT"].transforms().crop_size[0])
    except (KeyError, ValueError):
        return None


def _module(settings: ResolvedSettings, num_classes: int, stage: int) -> TwoStage:
    loader: Any = _NoLoader()
    method = build_method(settings, settings.batch_size, num_classes)
    handover = AdaptiveHandOver() if stage == 1 else None
    return build_module(settings, method, loader, 1, handover, method.options.feature_dim).train()


def _images(batch_size: int, size: int) -> Tensor:
    pixels = torch.randint(0, 256, (batch_size, size, size, 3), dtype=torch.uint8)
    return pixels.permute(0, 3, 1, 2)


def _seconds_per_image(step: Callable[[int], None], largest: int, device: torch.device) -> float:
    """Seconds per image of a step with `largest` images: timed, or extrapolated from two smaller steps.

    A step has a fixed cost and a cost per image; two sizes determine both.
    """
    step(min(_FIRST_BATCH, largest))  # warm-up: selects kernels
    begin, size = _now(device), min(_FIRST_BATCH, largest)
    timed: list[tuple[int, float]] = []
    while True:
        try:
            step(size)
            timed.append((size, _timed(step, size, device)))
        except torch.OutOfMemoryError:
            break
        in_time = _now(device) - begin + 2 * _GROWTH * timed[-1][1] < _BUDGET_SECONDS
        if size == largest or (len(timed) > 1 and not in_time):
            break
        size = min(_GROWTH * size, largest)
    return extrapolated_seconds(timed[-2:], largest) / largest


def extrapolated_seconds(timed: list[tuple[int, float]], size: int) -> float:
    """Seconds for `size` images from one or two pairs (images, seconds), smaller first.

    Linear through two pairs, with a slope of at least zero; proportional for a single pair.
    """
    (images, seconds), rest = timed[-1], timed[:-1]
    if images == size or not rest:
        return seconds * size / images
    slope = max(0.0, (seconds - rest[0][1]) / (images - rest[0][0]))
    return seconds + slope * (size - images)


def _timed(step: Callable[[int], None], size: int, device: torch.device) -> float:
    """Seconds of one step; the median of several if there is time, because other processes interfere."""
    seconds: list[float] = []
    while len(seconds) < _REPETITIONS and sum(seconds) < _BUDGET_SECONDS / 2:
        start = _now(device)
        step(size)
        seconds.append(_now(device) - start)
    return statistics.median(seconds)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
