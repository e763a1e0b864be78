"""TorchScript files: programs with weights. Loading one runs its code, so it requires --trust-code."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rela.errors import DataError, UnsafeError
from rela.pipeline.fingerprint import file_sha256


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, which has a file of constants beside the weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def open_torchscript(path: Path, trust_code: bool) -> Any:
    """The module in a TorchScript file, on the CPU; raises UnsafeError without `trust_code`."""
    if not trust_code:
        raise UnsafeError(
            f"{path} is a TorchScript file: opening it would run the code in it. Its SHA-256 is "
            f"{file_sha256(path)}; compare it with the publisher's, and pass --trust-code if you "
            "trust this file"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit")  # all of it is deprecated
            return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path} is not a readable TorchScript file: {reason}") from error


class ScriptedBackbone(nn.Module):
    """A scripted module as a backbone: images [B, 3, S, S] → features [B, D].

    An output [B, D] is used as it is, a map [B, C, H, W] is averaged over space. Other outputs raise
    DataError.
    """

    def __init__(self, script: Any, origin: str) -> None:
        super().__init__()
        self.script, self.origin = script, origin

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        try:
            output = self.script(images)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise DataError(
                f"{self.origin} does not take one batch of images {list(images.shape)}: {reason}"
            ) from error
        if isinstance(output, Tensor) and output.ndim == 4:
            output = output.mean((2, 3))
        if isinstance(output, Tensor) and output.ndim == 2:
            return output
        what = (
            f"a tensor {list(output.shape)}"
            if isinstance(output, Tensor)
            else f"a {type(output).__name__} of {len(output)}"
            if isinstance(output, tuple | list | dict)
            else f"a {type(output).__name__}"
        )
        raise DataError(
            f"{self.origin} gives {what}, expected features [B, D] or maps [B, C, H, W]; export a "
            "module that gives one of these"
        )
