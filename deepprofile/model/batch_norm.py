"""Batch norm over the samples of several processes: statistics and gradients of the whole batch.

PyTorch's own ``SyncBatchNorm`` does this on GPUs only; here is the same for the processor.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


class SharedBatchNorm(_BatchNorm):
    """Batch norm that, in training mode, normalises by the batch of all processes.

    Takes what ``BatchNorm1d`` and ``BatchNorm2d`` take, and has their parameters and buffers under
    the same names. Every process of torch's default group brings equally many values a channel, and
    all call it in the same order. The gradient of the inputs is that of the sum of all processes'
    objectives; those of weight and bias are this process's part of it, as
    ``DistributedDataParallel`` expects.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Normalised ``values``, (B, channels, …), B those of this process."""
        if not self.training:
            return super().forward(values)
        result, mean, variance = _Normalise.apply(values, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        self._follow(mean, variance, values.numel() // len(mean) * dist.get_world_size())
        return result  # type: ignore[no-any-return]

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Bring the running statistics towards those of a batch of ``count`` values a channel."""
        running_mean, running_var, batches = (
            self.running_mean,
            self.running_var,
            self.num_batches_tracked,
        )
        assert running_mean is not None
        assert running_var is not None
        assert batches is not None
        batches.add_(1)
        share = 1 / float(batches) if self.momentum is None else self.momentum
        running_mean.lerp_(mean.to(running_mean), share)
        running_var.lerp_((variance * (count / (count - 1))).to(running_var), share)

    def _check_input_dim(self, values: Tensor) -> None:
        if values.ndim < 2:
            raise ValueError(f"values have {values.ndim} dimensions: expected at least 2")


def share_statistics(model: nn.Module, device: str) -> None:
    """Put batch norm over all processes in place of each plain one, with its own parameters."""
    if torch.device(device).type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return
    for name, child in model.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
            for part in (*child._parameters, *child._buffers):
                setattr(shared, part, getattr(child, part))
            setattr(model, name, shared)
        else:
            share_statistics(child, device)


class _Normalise(Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias by the statistics of all processes."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The result, and the batch's mean and variance (not corrected) as float64."""
        own = torch.stack(torch.batch_norm_update_stats(values, None, None, 0.0)).double()
        everyone = own.new_zeros((dist.get_world_size(), *own.shape))
        everyone[dist.get_rank()] = own
        dist.all_reduce(everyone)
        means, variances = everyone.unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + means.var(0, correction=0)
        ctx.save_for_backward(values, weight, mean, variance)
        ctx.eps = eps
        result = _scale(values, mean, variance, weight, bias, eps)
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    @once_differentiable  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of values, weight and bias."""
        values, weight, mean, variance = ctx.saved_tensors
        local, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient,
            values,
            weight,
            mean.to(weight),
            variance.to(weight),
            None,
            None,
            False,
            ctx.eps,
            [True, True, True],
        )
        sums = torch.stack((of_weight, of_bias)).double()
        dist.all_reduce(sums)
        count = values.numel() // len(mean) * dist.get_world_size()
        slope, shift = sums / count * (weight / (variance + ctx.eps).sqrt())
        through_statistics = _scale(values, mean, variance, slope, shift, ctx.eps)
        return local.sub_(through_statistics), of_weight, of_bias, None


def _scale(
    values: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    mean, variance, weight, bias = (x.to(values.dtype) for x in (mean, variance, weight, bias))
    return functional.batch_norm(values, mean, variance, weight, bias, training=False, eps=eps)
