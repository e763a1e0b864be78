"""The number format of a training, where it is left open.

Two formats give two results, so the default depends on the kind of device only. `fastest` measures, once,
where the run begins; the run keeps what was found.
"""

import statistics
import time
from collections.abc import Callable

import torch

from rela.models.backbones import build_backbone
from rela.models.small_convolutions import use_small_convolutions
from rela.training.settings import ResolvedSettings

LEAST_GAIN = 1.2  # a smaller one may be noise
_ROUNDS = 3


def default_precision(name: str) -> str:
    """ "auto", "fastest" → 16-mixed on a GPU, 32-true on the CPU; other names are returned unchanged."""
    if name not in ("auto", "fastest"):
        return name
    return "16-mixed" if torch.cuda.is_available() else "32-true"


def choose_precision(
    settings: ResolvedSettings, memory_format: torch.memory_format, say: Callable[[str], None]
) -> str:
    """As `default_precision`, but on a CPU with bfloat16 "fastest" measures both and says it."""
    default = default_precision(settings.precision)
    if settings.precision != "fastest" or default != "32-true":
        return default
    if not has_bf16():
        say("32-true: this processor has no bfloat16")
        return default
    gain = speedup_of_bf16(settings, memory_format)
    chosen = "bf16-mixed" if gain >= LEAST_GAIN else default
    say(f"{chosen}: a step in bf16-mixed is {gain:.2g} × as fast as in 32-true here")
    return chosen


def has_bf16() -> bool:
    """Whether the processor multiplies matrices in bfloat16."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


def speedup_of_bf16(settings: ResolvedSettings, memory_format: torch.memory_format) -> float:
    """Of forward and backward passes of a batch through the backbone; median of alternating rounds."""
    with torch.random.fork_rng(devices=[]):
        backbone = build_backbone(settings.model, settings.image_size, seed=0).train()
        use_small_convolutions(backbone)
        backbone.to(memory_format=memory_format)
        shape = settings.batch_size // settings.accumulate, 3, *2 * (settings.image_size,)
        views = torch.randn(shape).contiguous(memory_format=memory_format)

        def seconds(is_bf16: bool) -> float:
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16):
                features = backbone(views)
            torch.autograd.backward(features.float().square().mean())
            return time.perf_counter() - start

        for is_bf16 in (False, True):
            seconds(is_bf16)  # chooses kernels
        return statistics.median(seconds(False) / seconds(True) for _ in range(_ROUNDS))
