"""Feature maps of a frozen backbone for every image of a split, computed once."""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from rela.errors import DataError
from rela.evaluation.voc import LabelledImage, read_labelled_image
from rela.models.layers import spatial_features
from rela.models.preprocessing import Preprocessing
from rela.pipeline.cores import num_cores

_IMAGES_PER_FORWARD = 16
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class FeatureMaps:
    """`features` float16 [N, C, h, w] in an unnamed temporary file; `masks` uint8 [N, S, S]."""

    features: NDArray[np.float16]
    masks: NDArray[np.uint8]


def map_size(backbone: nn.Module, image_size: int, own_image_size: int) -> tuple[int, ...]:
    """(S, C, h, w): an input size that the backbone accepts, and the shape of its feature map at S.

    S is `image_size`, or `own_image_size` for a model with a fixed input size. Raises ChoiceError for
    models without a known feature map.
    """
    device = next(backbone.parameters()).device
    for size in (image_size, own_image_size):
        try:
            with torch.inference_mode():
                maps = spatial_features(
                    backbone.eval(), torch.zeros(1, 3, size, size, device=device)
                )
            return (size, *maps.shape[1:])
        except (RuntimeError, AssertionError):
            if size == own_image_size:
                raise
    raise AssertionError("unreachable")


def compute_feature_maps(
    backbone: nn.Module,
    preprocessing: Preprocessing,
    pairs: tuple[LabelledImage, ...],
    shape: tuple[int, ...],
    num_classes: int,
    scratch: Path,
    device: torch.device,
    num_threads: int | None = None,
    on_progress: Callable[[int], Any] = lambda count: None,
) -> FeatureMaps:
    """Resize every image to S² pixels and compute the backbone's feature map; `shape` is (S, C, h, w).

    The backbone is in eval mode and does not change. The maps are stored in an unnamed file in the
    directory `scratch`, whose space is reserved first; the system caches what fits into memory. Raises
    DataError naming an unusable file or an image with features outside of float16.
    """
    size, *map_shape = shape
    backbone = backbone.eval().to(device)
    mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)
    features = _reserve((len(pairs), *map_shape), scratch)
    masks = np.empty((len(pairs), size, size), np.uint8)

    def read(pair: LabelledImage) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return read_labelled_image(
            pair, size, _RESAMPLING[preprocessing.interpolation], num_classes
        )

    with ThreadPoolExecutor(num_threads or num_cores(), "rela-voc") as pool:
        for first, chunk in _chunks(pairs):
            loaded = list(pool.map(read, chunk))
            images = torch.from_numpy(np.stack([image for image, _ in loaded])).to(device)
            pixels = images.permute(0, 3, 1, 2).float().div(255)
            maps = _maps(backbone, (pixels - mean) / std)
            finite = maps.isfinite().flatten(1).all(dim=1).tolist()
            if not all(finite):
                bad = chunk[finite.index(False)].image
                raise DataError(
                    f"the backbone gives NaN, Inf or values beyond float16 for {bad}; check its weights"
                )
            features[first : first + len(chunk)] = maps.cpu().numpy()
            masks[first : first + len(chunk)] = [mask for _, mask in loaded]
            on_progress(len(chunk))
    return FeatureMaps(features, masks)


@torch.inference_mode()
def _maps(backbone: nn.Module, pixels: Tensor) -> Tensor:
    device = pixels.device.type
    with torch.autocast(device, dtype=torch.float16, enabled=device == "cuda"):
        return spatial_features(backbone, pixels).half()


def _reserve(shape: tuple[int, ...], scratch: Path) -> NDArray[np.float16]:
    """A mapped file with reserved space: OSError on a full disk, where a sparse one would raise SIGBUS."""
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as file:
        os.posix_fallocate(file.fileno(), 0, 2 * int(np.prod(shape)))
        return np.memmap(file, np.float16, "r+", shape=shape)


def _chunks(
    pairs: tuple[LabelledImage, ...],
) -> Iterator[tuple[int, tuple[LabelledImage, ...]]]:
    for first in range(0, len(pairs), _IMAGES_PER_FORWARD):
        yield first, pairs[first : first + _IMAGES_PER_FORWARD]
