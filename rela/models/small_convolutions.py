"""Convolutions with few output pixels as matrix products on a CPU.

oneDNN's convolutions work along rows of pixels. For the 2×2 pixels of ResNet-18's last layers at 64 px, they
take three times as long as a matrix product, and the gradient of their weights in bfloat16 thirteen times
(benchmarks/NOTES.md).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_MOST_PIXELS = {torch.float32: 4, torch.bfloat16: 16}  # of the output, by the format of the input
_FEWEST_CHANNELS = 128  # narrow layers gain nothing


class SmallConv2d(nn.Conv2d):
    """A Conv2d that is a matrix product where its output has few pixels, on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] → [B, D, H', W'], in channels last where it is a product."""
        padding, stride = int(self.padding[0]), self.stride[0]
        height, width = (
            (side + 2 * padding - taps) // stride + 1
            for side, taps in zip(input.shape[2:], self.kernel_size, strict=True)
        )
        most = _MOST_PIXELS.get(input.dtype, 0) if input.device.type == "cpu" else 0
        if not 0 < height * width <= most:
            return super().forward(input)
        pixels = functional.pad(input, [padding] * 4).permute(0, 2, 3, 1)
        taps = [
            pixels[
                :, row : row + height * stride : stride, column : column + width * stride : stride
            ]
            for row in range(self.kernel_size[0])
            for column in range(self.kernel_size[1])
        ]
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # a view of one in channels last
        return functional.linear(torch.cat(taps, dim=3), weight, self.bias).permute(0, 3, 1, 2)


def use_small_convolutions(network: nn.Module) -> None:
    """Make every wide, plain Conv2d of more than one tap a SmallConv2d, in place."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = SmallConv2d


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.in_channels >= _FEWEST_CHANNELS
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.dilation == (1, 1)
        and layer.kernel_size != (1, 1)
        and layer.stride[0] == layer.stride[1]
        and not isinstance(layer.padding, str)
        and layer.padding[0] == layer.padding[1]
    )
