"""A network compiled by torch.compile, for a GPU: norm layers and activations join convolutions."""

import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from rela.errors import ChoiceError, one_line
from rela.representations.engines import LEAST_COSINE, LEAST_GAIN, Engine, Forward, compare

COMPILED = "compiled"
LEAST_SECONDS = 60.0  # of all forward passes; compiling takes 8 to 18 s
_ROUNDS = 3


def compiled(network: nn.Module) -> Forward:
    """Images [B, 3, S, S] → features [B, D]; compiled for the largest batch, to which others are padded."""
    run: Forward = torch.compile(network, dynamic=False)
    largest = 0

    def forward(images: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, len(images))
        missing = largest - len(images)
        if not missing:
            return run(images)
        padded = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
        return run(padded.contiguous(memory_format=torch.channels_last))[: len(images)]

    return forward


@torch.inference_mode()
def try_compiled(
    eager: Forward, compiled: Forward, images: Tensor, num_batches: int, *, must: bool = False
) -> Engine | None:
    """The compiled network's rate and agreement with the eager one; None if compiling does not pay.

    Both compute one batch of `images` with the number format of the job. With `must`, only the agreement
    decides. Raises ChoiceError if torch cannot compile the network, or if the features differ.
    """
    exact = eager(images)
    if not must and num_batches * _seconds(eager, images) < LEAST_SECONDS:
        return None
    try:
        features = compiled(images)
    except Exception as error:  # of any kind, from the compilers
        raise ChoiceError(
            f"torch.compile failed ({one_line(str(error))[:200]}); use --engine eager"
        ) from error
    ratios = [_seconds(eager, images) / _seconds(compiled, images) for _ in range(_ROUNDS)]
    engine = Engine(COMPILED, "float16", statistics.median(ratios))
    engine = compare(engine, features.double(), exact.double())
    if not engine.cosine >= LEAST_COSINE:
        raise ChoiceError(f"{engine.words}, at least {LEAST_COSINE} expected; use --engine eager")
    return engine if must or statistics.median(ratios) >= LEAST_GAIN else None


def _seconds(forward: Forward, images: Tensor) -> float:
    start = time.perf_counter()
    float(forward(images)[0, 0])  # waits for the GPU
    return time.perf_counter() - start
