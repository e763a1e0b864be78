"""Features of images by a backbone, in batches."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rela.data.beton.reader import Beton
from rela.data.kernels.resample import BICUBIC, BILINEAR
from rela.data.loader import CenterCropLoader, ReplayedCropLoader
from rela.data.memory import keep_freed_memory
from rela.errors import ChoiceError
from rela.models.preprocessing import Preprocessing
from rela.representations.compilation import COMPILED, compiled, try_compiled
from rela.representations.engines import Engine, Forward, build, choose
from rela.representations.half_precision import Weights, convert_to_float16, restore

_INTERPOLATIONS = {"bilinear": BILINEAR, "bicubic": BICUBIC}
_TRIED_IMAGES = 64  # on a GPU
_TRIED_ON_CPU = {"float32": 8, "bf16": 16}


class Embedder:
    """A backbone in eval mode with its preprocessing, on one device.

    float16 autocast on a GPU, float32 on the CPU. `device` is "auto", "cpu", "cuda" or "cuda:1".
    `num_images` decides the size of a forward pass if they come in several betons.
    `arithmetic` says what it computes in: "float32", "autocast" or "float16"; `engine` what computes it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        preprocessing: Preprocessing,
        device: str = "auto",
        batch_size: int = 128,
        num_threads: int | None = None,
        num_images: int | None = None,
    ) -> None:
        self.device = choose_device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.backbone = backbone.eval().to(self.device).to(memory_format=torch.channels_last)
        self.preprocessing = preprocessing
        self.batch_size, self.num_threads, self.num_images = batch_size, num_threads, num_images
        self._exact_weights: Weights | None = None
        self.finish: Callable[[Tensor], Tensor] | None = None  # what is done with features [B, D]
        self.engine, self._forward = Engine(), cast(Forward, self.backbone)
        self.arithmetic = "autocast" if self.device.type == "cuda" else "float32"
        self._mean = torch.tensor(preprocessing.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=self.device).view(1, 3, 1, 1)

    def __call__(
        self,
        beton: Beton,
        rows: NDArray[np.int64],
        on_progress: Callable[[int], Any] = lambda count: None,
        crops: NDArray[np.uint16] | None = None,
    ) -> NDArray[np.float32]:
        """Features float32 [len(rows), D] of the centre crops of these rows, in their order.

        With `crops` (uint16 [N, K, 5], see rela.data.crops), features [len(rows) · K, D] of these crops.
        """
        ((_, features),) = self.parts(beton, [rows], on_progress, crops)
        return features

    def try_float16(self, beton: Beton) -> None:
        """On a GPU, compute in float16 from now on if the first images' features stay as exact.

        Converts the weights of the backbone that was given. Depends on the data set and the backbone only.
        """
        if self.arithmetic != "autocast" or len(beton) < 2:
            return
        images = self._first_images(beton, _TRIED_IMAGES)
        self._exact_weights = convert_to_float16(self.backbone, images)
        if self._exact_weights is not None:
            self.arithmetic = "float16"

    def choose_engine(
        self, beton: Beton, wanted: str, precision: str, say: Callable[[str], None]
    ) -> None:
        """On a CPU, compute by the engine `wanted` from now on, or by the fastest for the first images.

        Names are those of `rela.representations.engines.choose`, which raises ChoiceError.
        """
        images = self._first_images(beton, _TRIED_ON_CPU[precision])
        self.engine, self._forward = choose(wanted, precision, self.backbone, images, say)

    def choose_compiled(
        self, beton: Beton, num_images: int, wanted: str, say: Callable[[str], None]
    ) -> None:
        """On a GPU, compute by torch.compile from now on: if "compiled" is wanted, or if it pays ("auto").

        `num_images` are those of the whole job. Raises ChoiceError if "compiled" is wanted and impossible.
        """
        if wanted not in (COMPILED, "auto"):
            return
        images = self._first_images(beton, min(_TRIED_IMAGES, self.batch_size))
        images = images[torch.arange(self.batch_size) % len(images)]
        forward, num_batches = compiled(self.backbone), -(-num_images // self.batch_size)
        eager, faster = self._computed_by(self._forward), self._computed_by(forward)
        try:
            found = try_compiled(eager, faster, images, num_batches, must=wanted == COMPILED)
        except ChoiceError as error:
            if wanted == COMPILED:
                raise
            say(f"not used: {error}")
        else:
            if found is not None:
                self.engine, self._forward = found, forward

    def use_engine(self, beton: Beton, engine: Engine) -> None:
        """Compute by an engine that was chosen before; raises ChoiceError if it is not installed."""
        if engine != self.engine:
            self.engine = engine
            if engine.name == COMPILED:
                self._forward = compiled(self.backbone)
            else:
                self._forward = build(engine, self.backbone, self._first_images(beton, 2))

    def back_to_autocast(self) -> bool:
        """Compute in float16 no longer, as after an overflow; returns whether that changed anything."""
        if self._exact_weights is None:
            return False
        restore(self.backbone, self._exact_weights)
        self._exact_weights, self.arithmetic = None, "autocast"
        return True

    @torch.inference_mode()
    def parts(
        self,
        beton: Beton,
        parts: Iterable[NDArray[np.int64]],
        on_progress: Callable[[int], Any] = lambda count: None,
        crops: NDArray[np.uint16] | None = None,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """(rows, their features) for each array of rows, in order, as soon as it is finished.

        Every forward pass is of the same number of images (`images_per_batch`), also across parts; the
        last is filled up with copies. So features do not depend on what else is embedded: the rounding of
        matrix products depends on their shape, but not on other rows or on the place of a row. Parts are
        requested before those in front of them are finished.
        """
        num_crops = 1 if crops is None else crops.shape[1]
        size = images_per_batch(self.batch_size, self.num_images or len(beton), num_crops)
        begun: deque[NDArray[np.int64]] = deque()  # rows of a part
        counts: deque[int] = deque()  # rows of a batch that are no copies

        def rows_of_parts() -> Iterator[np.int64]:
            for rows_of_part in parts:
                begun.append(rows_of_part)
                yield from rows_of_part

        def batches() -> Iterator[NDArray[np.int64]]:
            rows = rows_of_parts()
            while batch := list(itertools.islice(rows, size)):
                counts.append(len(batch))
                yield np.resize(np.array(batch, np.int64), size)

        found: deque[Tensor] = deque()  # features of rows that were not returned yet
        num_found = 0
        for _, pixels in self._loader(beton, batches(), crops):
            count = counts.popleft()
            found.append(self.features(pixels)[: count * num_crops])
            num_found += count
            on_progress(count)
            while begun and len(begun[0]) <= num_found:
                rows = begun.popleft()
                features = torch.cat(tuple(found))
                yield rows, features[: len(rows) * num_crops].cpu().numpy()  # waits for a GPU
                found = deque([features[len(rows) * num_crops :]])
                num_found -= len(rows)
        for rows in begun:  # empty ones
            yield rows, np.empty((0, 0), np.float32)

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] → float32 [B, D]."""
        features = self._computed_by(self._forward)(self._normalized(images))
        return features if self.finish is None else self.finish(features)

    def _computed_by(self, forward: Forward) -> Forward:
        """The same on normalised images, in the number format that this embedder has then."""

        @torch.inference_mode()
        def features(pixels: Tensor) -> Tensor:
            if self.arithmetic == "float16":
                pixels = pixels.half()
            autocasts = self.arithmetic == "autocast"
            with torch.autocast(self.device.type, dtype=torch.float16, enabled=autocasts):
                output = forward(pixels)
            return output.float()

        return features

    def _first_images(self, beton: Beton, count: int) -> Tensor:
        """Normalised."""
        ((_, pixels),) = self._loader(beton, [np.arange(min(count, len(beton)))], None)
        return self._normalized(pixels)

    def _normalized(self, images: Tensor) -> Tensor:
        pixels = images.to(self.device, non_blocking=True).float()
        return pixels.div_(255).sub_(self._mean).div_(self._std)

    def _loader(
        self,
        beton: Beton,
        batches: Iterable[NDArray[np.int64]],
        crops: NDArray[np.uint16] | None,
    ) -> CenterCropLoader:
        wanted = self.preprocessing
        interpolation = _INTERPOLATIONS[wanted.interpolation]
        for_gpu = self.device.type == "cuda"
        if crops is None:
            return CenterCropLoader(
                beton, batches, wanted.resize, wanted.crop, interpolation, self.num_threads, for_gpu
            )
        return ReplayedCropLoader(
            beton, batches, crops, wanted.crop, interpolation, self.num_threads, for_gpu
        )


def images_per_batch(batch_size: int, num_images: int, num_crops: int = 1) -> int:
    """Images of each forward pass for so many in all: a power of two for fewer than one batch."""
    return min(max(1, batch_size // num_crops), 1 << (num_images - 1).bit_length())


def choose_device(name: str) -> torch.device:
    """The device `name`; "auto" is this process's GPU, or the CPU without any."""
    if name == "auto":
        local_rank = int(os.environ.get("LOCAL_RANK", 0))  # from torchrun, one process per GPU
        count = torch.cuda.device_count()
        name = f"cuda:{local_rank % count}" if count else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ChoiceError(f"no device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ChoiceError(f"--device {name}: rela computes on cpu or cuda; use --device auto")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ChoiceError(f"--device {name}: torch finds no GPU here; use --device cpu")
    return device
