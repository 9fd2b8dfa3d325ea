"""The network in training mode along segments: windows of one cell that overlap, all at once.

A segment is some windows of a cell whose first days lie the same number of days apart. Their
feature maps share nearly all days: one *dense* map of the whole segment serves the inner positions
of all its windows; only the positions near both ends of a window, where the zero padding reaches
in, are computed for each window. Batch norm weighs a day by how often windows use it, so its
statistics, the coefficients and all gradients are those of the same windows cut one by one.

Maps are (rows, cells, channels): a row is a day of the dense map, or a position of a window's end.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.network import DeepProfile
from deepprofile.model.samples import Batch, Samples, cut_windows


class Shape(NamedTuple):
    """A batch: so many segments of so many windows that start ``step`` days apart."""

    segments: int
    windows: int
    step: int

    @classmethod
    def of(cls, text: str) -> "Shape":
        """The shape that a text such as 32x8x8 describes."""
        return cls(*(int(number) for number in text.split("x")))

    @property
    def span(self) -> int:
        """Days from the first window to the last."""
        return self.step * (self.windows - 1)

    def __str__(self) -> str:
        """The text."""
        return "x".join(str(number) for number in self)


def segment_index(index: Tensor, shape: Shape) -> Tensor:
    """Segments that together hold all samples of long enough runs, few of them twice.

    Args:
        index: (n, 2) cell and last day of each sample.
        shape: of a batch.

    Returns:
        (m, 2) int32, cell and last day of the first window.
    """
    found: list[tuple[int, int]] = []
    samples = index.numpy()
    for cell in np.unique(samples[:, 0]):
        days = samples[samples[:, 0] == cell, 1]
        for phase in range(shape.step):
            mine = days[days % shape.step == phase]
            for run in np.split(mine, np.flatnonzero(np.diff(mine) != shape.step) + 1):
                surplus = len(run) - shape.windows
                if surplus >= 0:
                    count = -(-len(run) // shape.windows)
                    first = np.linspace(0, surplus, count).round().astype(int)
                    found.extend((cell, day) for day in run[first])
    return torch.tensor(np.array(found), dtype=torch.int32)


def cut_segments(samples: Samples, part: Tensor, shape: Shape, window: int) -> Batch:
    """Segments with the targets of their windows.

    Args:
        samples: the series.
        part: (segments, 2) cell and last day of the first window.
        shape: of the batch.
        window: days in a window.

    Returns:
        Series (segments, variables, window + span), auxiliary (segments, features), target and
        weight (windows x segments, layers), the first windows of all segments first.
    """
    cell, first = part.to(torch.int64).unbind(1)
    days = (first + shape.step * torch.arange(shape.windows)[:, None]).flatten()
    cells = cell.repeat(shape.windows)
    return Batch(
        cut_windows(samples.series, cell, first + shape.span, window + shape.span),
        samples.auxiliary[cell],
        samples.target[cells, days],
        samples.weight[cells],
    )


@dataclass(frozen=True)
class StagePlan:
    """What a stage picks from the maps before it, and how its batch norm weighs days.

    Attributes:
        phases: rows between two positions of a window in the dense map.
        pool: positions that are averaged.
        stride: rows between two averages of the dense map.
        skipped: rows before the first of them.
        picked: rows of the dense map at the ends of the windows, (2, positions, windows): left
            ends, then right ends, beside the end positions that the stage before has.
        weight: (rows,) how many windows use a row of the dense map after the convolution.
        count: positions of all windows of one segment.
    """

    phases: int
    pool: int
    stride: int
    skipped: int
    picked: Tensor
    weight: Tensor
    count: int


@dataclass(frozen=True)
class SegmentPlan:
    """Stages of a network for segments; rows of the last dense map, (positions, windows)."""

    stages: list[StagePlan]
    picked: Tensor


@lru_cache(maxsize=8)
def plan_segments(config: NetworkConfig, windows: int, step: int) -> SegmentPlan:
    """Plan for segments of so many windows.

    Raises:
        ValueError: if ``step`` is not 1, a product of the first poolings or a multiple of all, or
            the window is too short to have positions that no padding reaches.
    """
    products = [math.prod(config.pooling[:k]) for k in range(len(config.pooling) + 1)]
    if step not in products and step % products[-1]:
        raise ValueError(f"step is {step} days: expected one of {products} or a multiple")
    half = config.kernel_size // 2
    rows, first, spacing, ends = config.window + step * (windows - 1), 0, 1, 0
    first_days = torch.arange(windows) * step
    stages = []
    for stride, pool, length in zip(
        products[:-1], config.pooling, (config.window // p for p in products[:-1]), strict=True
    ):
        own = pool * math.ceil((ends + half) / pool)  # end positions after the convolution
        if length <= 2 * own:
            raise ValueError(f"a window of {config.window} days is too short for segments")
        left = torch.arange(ends, own + half)
        positions = torch.stack([left, (length - 1 - left).flip(0)])
        picked = (first_days + stride * positions[..., None] - first) // spacing
        phases = stride // spacing
        rows = math.ceil(rows / phases) * phases - 2 * half * phases
        first += half * stride
        inner = (first_days[:, None] + stride * torch.arange(own, length - own) - first) // spacing
        weight = torch.bincount(inner.flatten(), minlength=rows).float()
        coarser = math.gcd(step, stride * pool)
        skip, skipped = coarser // spacing, -first % coarser // spacing
        stages.append(StagePlan(phases, pool, skip, skipped, picked, weight, windows * length))
        rows = len(range(skipped, rows - (pool - 1) * phases, skip))
        first += skipped * spacing
        ends, spacing = own // pool, coarser
    stride, length = products[-1], config.window // products[-1]
    inside = torch.arange(ends, length - ends)[:, None]
    return SegmentPlan(stages, (first_days + stride * inside - first) // spacing)


def segment_coefficients(
    model: DeepProfile, series: Tensor, auxiliary: Tensor, shape: Shape
) -> Tensor:
    """Coefficients of all windows of some segments, as the network in training mode has them.

    Args:
        model: the network; its batch norms follow the statistics, as in training.
        series: (segments, variables, window + span) in raw units.
        auxiliary: (segments, features) in raw units.
        shape: of the batch.

    Returns:
        (windows x segments, n): first windows of all segments, then second ones, ...
    """
    plan = plan_segments(model.config, shape.windows, shape.step)
    temporal = _extract(model, _normalised(model, series), plan)
    features = model.normalise_auxiliary(auxiliary).repeat(shape.windows, 1)
    return model.coefficients(temporal, features)


def _normalised(model: DeepProfile, series: Tensor) -> Tensor:
    """Normalised days (rows, cells, C) in the order of memory."""
    days = series.permute(2, 0, 1)
    span = model.series_maximum - model.series_minimum
    scale = torch.where(span > 0, 1 / torch.where(span > 0, span, 1), 0)
    result = torch.empty(days.shape, dtype=days.dtype, device=days.device)
    return torch.sub(days, model.series_minimum, out=result).mul_(scale)


def _extract(model: DeepProfile, dense: Tensor, plan: SegmentPlan) -> Tensor:
    """Temporal features (windows x segments, n_features) of normalised days (rows, cells, C)."""
    _, cells, _ = dense.shape
    windows = plan.picked.shape[1]
    half = model.config.kernel_size // 2
    ends = dense.new_zeros(0, 2, windows * cells, dense.shape[2])
    for stage, part in zip(model.extractor.children(), plan.stages, strict=True):
        convolution, norm, *_ = stage.children()
        strips = _strips(dense, ends, part.picked, half)
        dense = _convolve(dense, convolution, part.phases)
        strips = _convolve(strips.flatten(1, 2), convolution, 1)
        dense, strips = _normalise(dense, strips, part, norm)
        ends = strips.view(-1, part.pool, *strips.shape[1:]).mean(1)
        ends = ends.view(len(ends), 2, windows * cells, -1)
        dense = _pool(dense, part)
    inside = dense.index_select(0, plan.picked.flatten()).view(-1, windows, cells, dense.shape[2])
    left, right = (side.view(-1, *inside.shape[1:]) for side in ends.unbind(1))
    return torch.cat([left, inside, right]).permute(1, 2, 3, 0).flatten(0, 1).flatten(1)


def _strips(dense: Tensor, ends: Tensor, picked: Tensor, half: int) -> Tensor:
    """What the ends of the windows see: (positions, 2, windows x cells, C), padding included."""
    taken = dense.index_select(0, picked.flatten())
    taken = taken.view(2, picked.shape[1], -1, dense.shape[2])
    zeros = dense.new_zeros(half, *taken.shape[2:])
    left = torch.cat([zeros, ends[:, 0], taken[0]])
    right = torch.cat([taken[1], ends[:, 1], zeros])
    return torch.stack([left, right], dim=1)


def _convolve(rows: Tensor, convolution: nn.Module, phases: int) -> Tensor:
    """Convolution over every ``phases``-th row without padding."""
    n_rows, cells, channels = rows.shape
    missing = -n_rows % phases
    if missing:
        rows = functional.pad(rows, (0, 0, 0, 0, 0, missing))
    image = rows.view(1, -1, phases * cells, channels).permute(0, 3, 1, 2)
    weight, bias = cast(Tensor, convolution.weight), cast(Tensor, convolution.bias)
    kernel = weight.transpose(2, 3).contiguous()
    result = functional.conv2d(image, kernel, bias)
    return result.permute(0, 2, 3, 1).reshape(-1, cells, len(weight))


def _pool(dense: Tensor, part: StagePlan) -> Tensor:
    dense = dense[part.skipped :]
    if part.stride == part.pool:
        whole = len(dense) // part.pool * part.pool
        return dense[:whole].view(-1, part.pool, *dense.shape[1:]).mean(1)
    size = len(dense) - (part.pool - 1) * part.phases
    shifted = [dense[k * part.phases :][:size] for k in range(part.pool)]
    return torch.stack(shifted).mean(0) if len(shifted) > 2 else (shifted[0] + shifted[1]) / 2


def _normalise(
    dense: Tensor, strips: Tensor, part: StagePlan, norm: nn.Module
) -> tuple[Tensor, Tensor]:
    """Batch norm and ReLU by the statistics of all positions of all windows."""
    norm = cast(nn.BatchNorm2d, norm)
    count = part.count * dense.shape[1]
    weight = part.weight.to(dense)
    dense, strips, mean, variance = _WeightedNorm.apply(  # type: ignore[no-untyped-call]
        dense, strips, weight, norm.weight, norm.bias, norm.eps, count
    )
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / (count - 1)), share)
    return dense, strips


class _WeightedNorm(Function):
    """relu((x - mean) / sqrt(variance + eps) · weight + bias), two maps with one statistic."""

    @staticmethod
    def forward(
        ctx: Any,
        dense: Tensor,
        strips: Tensor,
        use: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        count: int,
    ) -> tuple[Tensor, ...]:
        """Both maps, the mean and the variance (not corrected)."""
        channels = len(weight)
        mean = ((use @ dense.flatten(1)).view(-1, channels).sum(0) + strips.sum((0, 1))) / count
        dense, strips = dense - mean, strips - mean
        variance = (use @ dense.square().flatten(1)).view(-1, channels).sum(0)
        variance = (variance + strips.square().sum((0, 1))) / count
        scale = (variance + eps).rsqrt()
        slope = scale * weight
        outs = [torch.addcmul(bias, part, slope).relu_() for part in (dense, strips)]
        ctx.save_for_backward(dense, strips, *outs, use, weight, scale)
        ctx.count = count
        ctx.mark_non_differentiable(mean, variance)
        return *outs, mean, variance

    @staticmethod
    @once_differentiable  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
    def backward(ctx: Any, dense_gradient: Tensor, strip_gradient: Tensor, *_: Tensor) -> Any:
        """Gradients of the maps, of weight and of bias."""
        dense, strips, dense_out, strips_out, use, weight, scale = ctx.saved_tensors
        from_dense = torch.ops.aten.threshold_backward(dense_gradient, dense_out, 0)
        from_strips = torch.ops.aten.threshold_backward(strip_gradient, strips_out, 0)
        of_bias = from_dense.sum((0, 1)) + from_strips.sum((0, 1))
        of_weight = ((from_dense * dense).sum((0, 1)) + (from_strips * strips).sum((0, 1))) * scale
        slope = scale * weight
        shift = of_bias * (slope / ctx.count)
        tilt = of_weight * (slope * scale / ctx.count)
        through = torch.addcmul(shift, dense, tilt).mul_(use[:, None, None])
        of_dense = from_dense.mul_(slope).sub_(through)
        of_strips = from_strips.mul_(slope).sub_(torch.addcmul(shift, strips, tilt))
        return of_dense, of_strips, None, of_weight, of_bias, None, None
