"""Engines and precisions of `rela embed` on a CPU against eager float32: rates and differences of features.

Forward passes at 224 px with random weights, on one thread, by CPU seconds, which other work on the machine
disturbs less. `MKL_ENABLE_INSTRUCTIONS=AVX2` slows MKL down, as on processors where it is slow by itself.
ENGINE_MODELS="NAME NAME" chooses among timm's models.
"""

import os
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import timm
import torch

from benchmarks.speed.comparison import Comparison, Figure, compare
from rela.representations.engines import Engine, Forward, agreement, build

MODELS = "resnet18 vit_small_patch16_224 convnext_tiny tf_efficientnet_lite0 mobilenetv3_small_100"
BATCH_SIZE, SIZE = 16, 224
_PACKAGES = ("onnxruntime", "openvino")
_ENGINES = [
    Engine(),
    Engine("onednn"),
    *(Engine(name) for name in _PACKAGES if find_spec(name)),
    Engine("eager", "bf16"),
    *(Engine("openvino", "bf16") for name in _PACKAGES[1:] if find_spec(name)),
]


def run(rounds: int, scratch: Path) -> list[Comparison | Figure]:
    """Each engine's images per CPU second, and its features' agreement with eager ones."""
    warnings.simplefilter("ignore")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        names = os.environ.get("ENGINE_MODELS", MODELS).split()
        return [found for name in names for found in _of(name, rounds)]
    finally:
        torch.set_num_threads(num_threads)


def _of(name: str, rounds: int) -> list[Comparison | Figure]:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
    images = torch.randn(BATCH_SIZE, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    has_linear = any(weights.ndim == 2 for weights in network.parameters())
    engines = [engine for engine in _ENGINES if has_linear or engine.name != "onednn"]
    forwards = {f"{each.name} {each.precision}": build(each, network, images) for each in engines}
    compared = [agreement(engine, forwards[f"{engine.name} {engine.precision}"], network, images)
                for engine in engines[1:]]  # fmt: skip
    with torch.inference_mode():
        sides = {side: _rate(forward, images) for side, forward in forwards.items()}
        every = compare(f"{name}, {BATCH_SIZE} images of {SIZE} px", "images/CPU s", sides, rounds)
    pairs: list[Comparison | Figure] = [
        every.of(every.title, [side, next(iter(sides))], {}) for side in list(sides)[1:]
    ]
    return [*pairs, *(Figure(f"{name}, {each.words}", "", [each.difference]) for each in compared)]


def _rate(forward: Forward, images: torch.Tensor) -> Callable[[], float]:
    def rate() -> float:
        start = time.process_time()
        forward(images)
        return len(images) / (time.process_time() - start)

    return rate
