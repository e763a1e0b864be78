"""Linear layers by oneDNN on a CPU, where MKL is slow.

PyTorch leaves float32 linear layers to MKL, which takes a slow path on some processors, and convolutions to
oneDNN, which does not (benchmarks/RESULTS.md). A linear layer is a 1×1 convolution.
"""

from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_linear = functional.linear
_FEWEST_ROWS = 16
_NO_PADDING, _ONE, _NO_GROUPS = (0, 0), (1, 1), 1


class OneDnnLinear(TorchFunctionMode):
    """While entered, float32 linear layers on a CPU are computed by oneDNN; differentiable.

    Compiled and scripted networks are not affected.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace `torch.nn.functional.linear`; see `torch.overrides`."""
        if func is functional.linear:
            return linear(*args, **(kwargs or {}))
        if func is functional.multi_head_attention_forward:  # what it calls is not seen here
            with mock.patch.object(functional, "linear", linear):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: [..., K], [N, K], [N] → [..., N]."""
    width = input.shape[-1]
    is_plain = input.dtype == weight.dtype == torch.float32 and input.device.type == "cpu"
    if not is_plain or input.numel() < _FEWEST_ROWS * width or torch.is_autocast_enabled("cpu"):
        return _linear(input, weight, bias)
    batch = input.shape[0] if input.ndim > 2 else 1
    pixels = input.reshape(batch, 1, -1, width).permute(0, 3, 1, 2)  # channels last, not copied
    # not conv2d, which avoids oneDNN for small batches on one thread
    output = torch.mkldnn_convolution(
        pixels, weight[:, :, None, None], bias, _NO_PADDING, _ONE, _ONE, _NO_GROUPS
    )
    return output.permute(0, 2, 3, 1).reshape(*input.shape[:-1], weight.shape[0])
