"""Batch norm over all processes of a training, on CPUs; torch's own SyncBatchNorm takes GPUs alone."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_TIMM_EXTRAS = ("drop", "act")  # of timm's norms that also activate


class _Sum(torch.autograd.Function):
    """Sum over all processes; the gradient is that of the sum of all their losses."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """nn.BatchNorm1d, 2d and 3d in one, whose batch is that of all processes together.

    Input [B, C] or [B, C, ...], with the same B on every process; output alike. Mean and variance are
    taken one after the other (the difference of two large sums would lose digits), in float32
    at least. Running statistics come out the same on every process, and in evaluation nothing
    differs from ordinary batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm got {input.dim()} dimensions, expected at least 2")

    def forward(self, input: Tensor) -> Tensor:
        """Normalised, then whatever the layer it stands for does besides."""
        synchronized = self.training and dist.is_initialized()
        output = self._normalize(input) if synchronized else super().forward(input)
        for name in _TIMM_EXTRAS:
            if hasattr(self, name):
                output = getattr(self, name)(output)
        return output

    def _normalize(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        dims = [0, *range(2, input.dim())]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        with torch.autocast(input.device.type, enabled=False):
            values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
            mean = _Sum.apply(values.mean(dims)) / dist.get_world_size()
            centered = values - mean.view(shape)
            variance = _Sum.apply(centered.square().mean(dims)) / dist.get_world_size()
            count = values.numel() // values.shape[1] * dist.get_world_size()
            self._follow(mean.detach(), variance.detach() * count / max(1, count - 1))
            scale = torch.rsqrt(variance + self.eps)
            if self.affine:
                scale = scale * self.weight
            output = centered * scale.view(shape)
            if self.affine:
                output = output + self.bias.view(shape)
        return output.to(input.dtype)

    def _follow(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), share)


def synchronize(module: nn.Module) -> nn.Module:
    """`module` with every batch norm in it replaced; parameters and buffers are the same objects."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return _synchronized(module)
    for name, child in module.named_children():
        setattr(module, name, synchronize(child))
    return module


def _synchronized(norm: nn.modules.batchnorm._BatchNorm) -> SyncBatchNorm:
    found = SyncBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    for name in ("weight", "bias"):
        found.register_parameter(name, getattr(norm, name))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        found.register_buffer(name, getattr(norm, name))
    for name in _TIMM_EXTRAS:
        if hasattr(norm, name):
            setattr(found, name, getattr(norm, name))
    return found.train(norm.training)
