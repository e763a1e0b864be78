"""Batch norm over all processes of a training on CPUs; torch's SyncBatchNorm supports GPUs only."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_TIMM_EXTRAS = ("drop", "act")  # of timm's batch norms with an activation


class _Normalize(torch.autograd.Function):
    """Input [B, C, ...], weight and bias [C] → output, mean [C] and variance [C] over all processes.

    One exchange forward and one backward. The gradients of weight and bias are those of this process's
    samples; DDP adds those of the other processes, as for every layer.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims, shape = _dims_and_shape(input)
        local_mean = input.mean(dims)
        squares = (input - local_mean.view(shape)).square().sum(dims)
        count, num_ranks = input.numel() // input.shape[1], dist.get_world_size()
        gathered = [torch.empty_like(torch.cat([local_mean, squares])) for _ in range(num_ranks)]
        dist.all_gather(gathered, torch.cat([local_mean, squares]))
        means, sums = torch.stack(gathered).chunk(2, dim=1)
        mean = means.mean(0)
        # squares about each process's own mean, and the means' about the common one: no large
        # numbers are subtracted (Chan, Golub, LeVeque, 1983)
        variance = (sums.sum(0) + count * (means - mean).square().sum(0)) / (count * num_ranks)
        scale = torch.rsqrt(variance + eps)
        normalized = (input - mean.view(shape)).mul_(scale.view(shape))
        ctx.save_for_backward(normalized, weight, scale)
        ctx.count = count * num_ranks
        ctx.mark_non_differentiable(mean, variance)
        output = torch.addcmul(bias.view(shape), normalized, weight.view(shape))
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        normalized, weight, scale = ctx.saved_tensors
        gradient = gradients[0]
        dims, shape = _dims_and_shape(gradient)
        own = torch.cat([gradient.sum(dims), (gradient * normalized).sum(dims)])
        total = own.clone()
        dist.all_reduce(total)
        bias_sum, weight_sum = (total / ctx.count).chunk(2)
        centered = gradient - bias_sum.view(shape) - normalized * weight_sum.view(shape)
        bias_gradient, weight_gradient = own.chunk(2)
        return centered * (weight * scale).view(shape), weight_gradient, bias_gradient, None


def _dims_and_shape(values: Tensor) -> tuple[list[int], list[int]]:
    """All dimensions but the channels', and the shape that spreads [C] over them."""
    return [0, *range(2, values.dim())], [1, -1, *[1] * (values.dim() - 2)]


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """nn.BatchNorm1d, 2d and 3d in one, over the samples of all processes.

    Input [B, C] or [B, C, ...], with the same B on every process; output of the same shape, computed in
    at least float32. Running statistics are equal on all processes; evaluation is ordinary batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm got {input.dim()} dimensions, expected at least 2")

    def forward(self, input: Tensor) -> Tensor:
        """Normalize, then apply the dropout and activation of a timm layer."""
        synchronized = self.training and dist.is_initialized()
        output = self._normalize(input) if synchronized else super().forward(input)
        for name in _TIMM_EXTRAS:
            if hasattr(self, name):
                output = getattr(self, name)(output)
        return output

    def _normalize(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
            weight = self.weight if self.affine else values.new_ones(self.num_features)
            bias = self.bias if self.affine else values.new_zeros(self.num_features)
            output, mean, variance = _Normalize.apply(values, weight, bias, self.eps)
            count = values.numel() // values.shape[1] * dist.get_world_size()
            self._update_running_stats(mean, variance * count / max(1, count - 1))
        normalized: Tensor = output.to(input.dtype)
        return normalized

    def _update_running_stats(self, mean: Tensor, unbiased_variance: Tensor) -> None:
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
    """Replace every batch norm in `module`, keeping its parameter and buffer objects."""
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
