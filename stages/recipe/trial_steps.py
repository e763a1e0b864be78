"""Speed of this device in training and embedding: a few steps on random images, a second or two each."""

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rela.data.beton.encoding import encode_image
from rela.data.memory import keep_freed_memory
from rela.data.views import stage1_views
from rela.evaluation.logistic import logistic_probe
from rela.evaluation.protocols import LOGISTIC_PROTOCOL
from rela.methods.optimizers import build_optimizer
from rela.models.backbones import build_backbone, model_width
from rela.models.preprocessing import preprocessing_for
from rela.models.timm_models import PREFIX, check_timm_name, require_timm
from rela.pipeline.cores import num_cores
from rela.representations.embedder import Embedder, choose_device
from rela.sources.image_file import BadImageError
from rela.sources.source import ImageSource
from rela.stages.settings import ConvertSettings
from rela.stages.workspace.encoding import encoding_by
from rela.training.handover import AdaptiveHandOver
from rela.training.precision import default_precision
from rela.training.run import build_method, build_module
from rela.training.settings import ResolvedSettings, TrainSettings
from rela.training.two_stage import TwoStage

_ENCODED_SECONDS = 1.0
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


def encode_seconds(images: ImageSource, settings: ConvertSettings) -> float:
    """Seconds per image on all cores, from as many spaced-out images as can be encoded in a second."""
    samples = images.splits["train"]
    samples = samples[:: max(1, len(samples) // 500)]
    start, done = time.perf_counter(), 0
    for sample in samples:
        with contextlib.suppress(BadImageError):
            encode_image(sample.read(images.root), encoding_by(settings), 0.5)
        done += 1
        if time.perf_counter() - start > _ENCODED_SECONDS:
            break
    return (time.perf_counter() - start) / done / num_cores()


def step_seconds(settings: TrainSettings, num_classes: int, stage: int) -> float:
    """Seconds per image of a stage: forward, backward, optimizer and momentum, without loading.

    For one device's batch; extrapolated from smaller batches if a full step takes too long to try.
    """
    keep_freed_memory()
    device = choose_device("auto")
    resolved = ResolvedSettings(**vars(settings))
    precision = default_precision(resolved.precision)
    with torch.random.fork_rng(devices=[]):
        module = _module(resolved, num_classes, stage).to(device)
    method = module.method
    views = stage1_views(resolved.image_size) if stage == 1 else method.views()
    optimizer = build_optimizer(resolved.optimizer_settings, module.parameters())

    def step(batch_size: int) -> None:
        targets = torch.randn(batch_size, method.options.feature_dim, device=device)
        batch: dict[str, Any] = {
            "views": [_images(batch_size, view.size).to(device) for view in views],
            "label": torch.zeros(batch_size, dtype=torch.int64, device=device),
            "targets": [targets] * len(views),
        }
        with torch.autocast(device.type, _AUTOCAST.get(precision), enabled=precision in _AUTOCAST):
            loss = module.training_step(batch, 0)["loss"]
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        method.update_momentum(None if module.stage == 1 else module.progress)

    return _seconds_per_image(step, resolved.batch_size // resolved.accumulate, device)


def embed_seconds(arch: str, image_size: int, batch_size: int, device: str) -> float:
    """Seconds per image of one forward pass in evaluation, without loading."""
    backbone = build_backbone(arch, image_size, seed=0)
    embedder = Embedder(backbone, preprocessing_for(image_size), device, batch_size)

    def step(size: int) -> None:
        with torch.inference_mode():
            embedder.features(_images(size, image_size)).cpu()

    return _seconds_per_image(step, batch_size, embedder.device)


def probe_seconds(arch: str, image_size: int, num_train: int, num_classes: int) -> float:
    """Seconds of the linear probe on features of a model, from a few passes over random ones."""
    width = model_width(arch, image_size)
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
    """Input size in pixels of the published weights of `arch`; None if there are none."""
    import torchvision.models as tv

    if arch.startswith(PREFIX):
        config = require_timm().get_pretrained_cfg(check_timm_name(arch))
        return int(config.input_size[-1]) if config.has_weights else None
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
