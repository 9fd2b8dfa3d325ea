"""The network run along whole series instead of window by window; exact, and much quicker.

Windows of consecutive days share all but one day. Position i of a stage's feature map, in the
window that starts on day d, lies on day d + s·i, where s is the product of the pooling before the
stage. Far from the ends of the window its value depends on that day alone, so one *dense* map of
all days serves all windows: a convolution of stage stride s becomes one dilated by s. Near the
ends the zero padding reaches in; these few positions are *edges*, computed for each window from
truncated kernels. Only edges and picked days are ever put together: no window is materialised.
"""

import copy
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d

from deepprofile.model.network import DeepProfile
from deepprofile.model.samples import full_windows

VALUES_AT_ONCE = 20_000
"""Cell-days of input taken together: a feature map of 32 channels is then 2.6 MB."""
ROWS_AT_ONCE = 1024
"""Windows that pass the dense layers and heads together: their values then stay in the cache."""


@dataclass(frozen=True)
class FeatureMap:
    """Feature map of one stage in all windows of some cells.

    Attributes:
        dense: (cells, days, channels), value on each day away from the ends of a window.
        first_day: day of the series on which ``dense`` begins.
        stride: days between two positions.
        length: positions in a window.
        n_windows: windows of a cell; one starts on each of the first days.
        left: values at the first positions, each (cells, n_windows, channels).
        right: values at the last positions, the last position first.
    """

    dense: Tensor
    first_day: int
    stride: int
    length: int
    n_windows: int
    left: tuple[Tensor, ...] = ()
    right: tuple[Tensor, ...] = ()

    def at(self, position: int) -> Tensor:
        """Values of all windows at one position, (cells, n_windows, channels)."""
        from_right = self.length - 1 - position
        if position < len(self.left):
            return self.left[position]
        if from_right < len(self.right):
            return self.right[from_right]
        start = position * self.stride - self.first_day
        return self.dense[:, start : start + self.n_windows]


def sliding_coefficients(
    model: DeepProfile, series: ArrayLike, auxiliary: ArrayLike
) -> NDArray[np.float32]:
    """Coefficients of every window of the series, equal to the network's window by window.

    Args:
        model: the network; evaluated in evaluation mode whatever its own mode is.
        series: (cells, variables, T) in raw units.
        auxiliary: (cells, features) in raw units.

    Returns:
        (cells, T - window + 1, n) in m³ m⁻³ m⁻ⁱ, NaN where a value of the window or a feature
        is missing.

    Raises:
        ValueError: if the shapes don't fit the model, or T is shorter than a window.
    """
    series = np.asarray(series, np.float32)
    auxiliary = np.asarray(auxiliary, np.float32)
    check_shapes(model, series, auxiliary)
    model = evaluation_model(model)
    n_cells, _, n_days = series.shape
    n_windows = n_days - model.config.window + 1
    result = np.empty((n_cells, n_windows, model.config.n_coefficients), np.float32)
    step = max(1, VALUES_AT_ONCE // n_days)
    for start in range(0, n_cells, step):
        part = slice(start, start + step)
        result[part] = _predict_cells(model, series[part], auxiliary[part])
    return result


def evaluation_model(model: DeepProfile) -> DeepProfile:
    """The model itself in evaluation mode, or such a copy of a model in training mode."""
    return copy.deepcopy(model).eval() if model.training else model


def check_shapes(
    model: DeepProfile, series: NDArray[np.float32], auxiliary: NDArray[np.float32]
) -> None:
    """Raise ValueError unless series (cells, variables, T) and features fit the model."""
    config = model.config
    if series.ndim != 3 or series.shape[1] != config.n_variables:
        raise ValueError(
            f"series has shape {series.shape}: expected (cells, {config.n_variables} variables, "
            "days)"
        )
    if series.shape[2] < config.window:
        raise ValueError(
            f"series has {series.shape[2]} days: expected at least the {config.window} of one "
            "window"
        )
    if auxiliary.shape != (len(series), config.n_auxiliary):
        raise ValueError(
            f"auxiliary has shape {auxiliary.shape}: expected (cells, features) = "
            f"({len(series)}, {config.n_auxiliary})"
        )


@torch.inference_mode()
def _predict_cells(
    model: DeepProfile, series: NDArray[np.float32], auxiliary: NDArray[np.float32]
) -> NDArray[np.float32]:
    device = model.series_minimum.device
    window = model.config.window
    normal = model.normalise_series(torch.as_tensor(series, device=device)).transpose(1, 2)
    features = model.normalise_auxiliary(torch.as_tensor(auxiliary, device=device))
    known = ~normal.isnan().any(2) & ~features.isnan().any(1)[:, None]
    temporal = _temporal_features(model, normal.nan_to_num())
    n_windows = temporal.shape[1]
    repeated = features[:, None].expand(-1, n_windows, -1)
    rows = zip(
        torch.split(temporal.flatten(0, 1), ROWS_AT_ONCE),
        torch.split(repeated.flatten(0, 1), ROWS_AT_ONCE),
        strict=True,
    )
    values = torch.cat([model.coefficients(*row) for row in rows])
    values = values.view(len(series), n_windows, -1)
    values[~full_windows(known, window)[:, window - 1 :]] = torch.nan
    return values.cpu().numpy()


def _temporal_features(model: DeepProfile, series: Tensor) -> Tensor:
    """Features (cells, n_windows, n_features) of normalised series (cells, days, variables)."""
    window = model.config.window
    stage = FeatureMap(series.contiguous(), 0, 1, window, series.shape[1] - window + 1)
    for layers, pool in zip(model.extractor.children(), model.config.pooling, strict=True):
        convolution, norm, *_ = layers.children()
        stage = _pool(_convolve(stage, *_fold(convolution, norm)), pool)
    positions = [stage.at(position) for position in range(stage.length)]
    return torch.stack(positions, dim=3).flatten(2)


def _fold(convolution: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel (out, in, 1, taps) and bias of a convolution with its batch norm."""
    folded = nn.utils.fuse_conv_bn_eval(cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm))
    return folded.weight, cast(Tensor, folded.bias)


def _convolve(stage: FeatureMap, kernel: Tensor, bias: Tensor) -> FeatureMap:
    """Convolution with zero padding at the ends of each window, then ReLU."""
    half = kernel.shape[3] // 2
    n_left = min(len(stage.left) + half, stage.length)
    n_right = min(len(stage.right) + half, stage.length - n_left)
    last = stage.length - 1
    return replace(
        stage,
        dense=_convolve_dense(stage, kernel, bias, has_inside=n_left + n_right < stage.length),
        first_day=stage.first_day + half * stage.stride,
        left=tuple(_convolve_edge(stage, i, kernel, bias) for i in range(n_left)),
        right=tuple(_convolve_edge(stage, last - i, kernel, bias) for i in range(n_right)),
    )


def _convolve_dense(stage: FeatureMap, kernel: Tensor, bias: Tensor, has_inside: bool) -> Tensor:
    if not has_inside:  # every position is an edge: the dense map is not looked at again
        return stage.dense[:, :0, :1].expand(-1, -1, len(bias))
    image = stage.dense.transpose(1, 2).unsqueeze(2)  # channels-last without a copy
    values = conv2d(image, kernel, bias, dilation=(1, stage.stride))
    return values.squeeze(2).transpose(1, 2).relu_()


def _convolve_edge(stage: FeatureMap, position: int, kernel: Tensor, bias: Tensor) -> Tensor:
    """Values at one position, from the taps that lie inside the window."""
    half = kernel.shape[3] // 2
    taps = range(max(0, half - position), min(2 * half + 1, stage.length + half - position))
    inputs = torch.cat([stage.at(position + tap - half) for tap in taps], dim=2)
    weight = kernel[:, :, 0, taps.start : taps.stop].transpose(1, 2).flatten(1)
    return nn.functional.linear(inputs, weight, bias).relu_()


def _pool(stage: FeatureMap, size: int) -> FeatureMap:
    """Average of ``size`` positions at a time."""

    def mean(position: int) -> Tensor:
        first = position * size
        total = sum((stage.at(first + k) for k in range(1, size)), start=stage.at(first))
        return total / size

    length = stage.length // size
    n_left = -(-len(stage.left) // size)
    n_right = min(-(-len(stage.right) // size), length - n_left)
    return replace(
        stage,
        dense=_pool_dense(stage.dense, size, stage.stride),
        stride=stage.stride * size,
        length=length,
        left=tuple(mean(i) for i in range(n_left)),
        right=tuple(mean(length - 1 - i) for i in range(n_right)),
    )


def _pool_dense(dense: Tensor, size: int, stride: int) -> Tensor:
    n_days = max(0, dense.shape[1] - (size - 1) * stride)
    total = dense[:, :n_days].clone()
    for k in range(1, size):
        total += dense[:, k * stride : k * stride + n_days]
    return total.div_(size)
