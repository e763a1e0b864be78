"""A network in float16 on a GPU, where that is as exact as autocast.

Autocast computes norm layers, softmax and the sums of residual blocks in float32. In transformers, that
costs a third of the rate (benchmarks/RESULTS.md) and hardly makes the features more exact, since weights and
products are in float16 either way. But sums of large numbers can overflow, so each network is tried.
"""

import torch
from torch import Tensor, nn

_LARGEST_RATIO = 2.0  # of the errors, float16 over autocast


Weights = dict[str, Tensor]


@torch.no_grad()
def convert_to_float16(network: nn.Module, images: Tensor) -> Weights | None:
    """Convert weights and buffers to float16 and return the exact ones; None if that is less exact.

    `images` float32 [B, 3, S, S], normalised, at least 2 of them. The error of features is their distance
    from those in float32, relative to the spread of the latter over the images.
    """
    exact_weights = {name: tensor.clone() for name, tensor in _weights(network).items()}
    device = images.device.type
    with torch.backends.cudnn.flags(allow_tf32=False), torch.autocast(device, enabled=False):
        exact = network(images).double()
    with torch.autocast(device, dtype=torch.float16):
        error = _error(network(images), exact)
    network.half()
    try:
        is_exact = _error(network(images.half()), exact) <= _LARGEST_RATIO * error
    except RuntimeError:  # the code makes a float32 tensor, which meets float16 ones
        is_exact = False
    if is_exact:
        return exact_weights
    restore(network, exact_weights)
    return None


@torch.no_grad()
def restore(network: nn.Module, exact_weights: Weights) -> None:
    """Undo `convert_to_float16`."""
    network.float()
    for name, tensor in _weights(network).items():
        tensor.copy_(exact_weights[name])


def _weights(network: nn.Module) -> Weights:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _error(features: Tensor, exact: Tensor) -> float:
    spread = (exact - exact.mean(dim=0)).norm()
    return float((features.double() - exact).norm() / spread)
