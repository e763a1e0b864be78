"""Images × a backbone → features, batch after batch."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rela.beton import Beton
from rela.errors import ChoiceError
from rela.kernels.resample import BICUBIC, BILINEAR
from rela.loader import CenterCropLoader, ReplayedCropLoader
from rela.preprocessing import Preprocessing

_INTERPOLATIONS = {"bilinear": BILINEAR, "bicubic": BICUBIC}


class Embedder:
    """A backbone in eval mode with its own preprocessing on its device.

    float16 autocast on a GPU, float32 on the CPU. `device` is "auto", "cpu", "cuda" or "cuda:1".
    """

    def __init__(
        self,
        backbone: nn.Module,
        preprocessing: Preprocessing,
        device: str = "auto",
        batch_size: int = 128,
        num_threads: int | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.backbone = backbone.eval().to(self.device).to(memory_format=torch.channels_last)
        self.preprocessing = preprocessing
        self.batch_size, self.num_threads = batch_size, num_threads
        self._mean = torch.tensor(preprocessing.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def __call__(
        self,
        beton: Beton,
        rows: NDArray[np.int64],
        on_progress: Callable[[int], Any] = lambda count: None,
        crops: NDArray[np.uint16] | None = None,
    ) -> NDArray[np.float32]:
        """Features float32 [len(rows), D] of the centre crops of these rows, in their order.

        With `crops` (uint16 [N, K, 5], see rela.crops) of those instead: [len(rows) · K, D].
        """
        wanted = self.preprocessing
        interpolation = _INTERPOLATIONS[wanted.interpolation]
        loader: CenterCropLoader
        if crops is None:
            loader = CenterCropLoader(
                beton, rows, wanted.resize, wanted.crop, interpolation, self.batch_size,
                self.num_threads,
            )  # fmt: skip
        else:
            loader = ReplayedCropLoader(
                beton, rows, crops, wanted.crop, interpolation, self.batch_size, self.num_threads
            )
        features = []
        for batch_rows, images in loader:
            features.append(self.features(images).cpu().numpy())
            on_progress(len(batch_rows))
        return np.concatenate(features)

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] → float32 [B, D]."""
        pixels = images.to(self.device, non_blocking=True).float().div(255)
        with torch.autocast(
            self.device.type, dtype=torch.float16, enabled=self.device.type == "cuda"
        ):
            output: Tensor = self.backbone((pixels - self._mean) / self._std)
        return output.float()


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one, this process's own."""
    if name == "auto":
        local_rank = int(os.environ.get("LOCAL_RANK", 0))  # torchrun's, one process for each GPU
        count = torch.cuda.device_count()
        name = f"cuda:{local_rank % count}" if count else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ChoiceError(f"no device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ChoiceError(f"--device {name}: torch sees no GPU here; use --device cpu")
    return device
