"""The network run along whole series instead of window by window; exact, and much quicker.

Windows of consecutive days share all but one day. Position i of a stage's feature map, in the
window that starts on day d, lies on day d + s·i, where s is the product of the pooling before the
stage. Far from the ends of the window its value depends on that day alone, so one *dense* map of
all days serves all windows: a convolution of stage stride s becomes one dilated by s. Near the
ends the zero padding reaches in; these few positions are *edges*, of which each window has its
own. Every map is multiplied once with all taps of the kernel; dense values and edges are sums of
these products on different days. No window is ever materialised.

Arrays have the channels first and the days last: a product is weight @ values, a sum runs along
contiguous days.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from deepprofile.model.folding import Convolution, FoldedNetwork, Ramp, fold
from deepprofile.model.network import DeepProfile

VALUES_AT_ONCE = 4_000
"""Cell-days of input that a thread takes together: what is live then stays in its cache."""
ROWS_AT_ONCE = 256
"""Windows that a thread passes through the dense layers together, likewise."""
DEVICE_FACTOR = 512
"""A GPU takes so many times more than a thread of the CPU."""


@dataclass(frozen=True)
class FeatureMap:
    """Feature map of one stage in all windows of some cells.

    Attributes:
        dense: (channels, cells, days), value on each day away from the ends of a window.
        first_day: day of the series on which ``dense`` begins.
        stride: days between two positions.
        length: positions in a window.
        n_windows: windows of a cell; one starts on each of the first days.
        left: values at the first positions, each (channels, cells, n_windows).
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
        """Values of all windows at one position, (channels, cells, n_windows)."""
        from_right = self.length - 1 - position
        if position < len(self.left):
            return self.left[position]
        if from_right < len(self.right):
            return self.right[from_right]
        return self.on_days_of(position, self.dense)

    def on_days_of(self, position: int, values: Tensor) -> Tensor:
        """Of values that lie as ``dense`` those of one position in all windows."""
        return values.narrow(2, position * self.stride - self.first_day, self.n_windows)


class TapProducts:
    """Products of a feature map with each tap of a kernel (taps, out, in), and their sums."""

    def __init__(self, stage: FeatureMap, kernel: Tensor) -> None:
        """Multiply the edges with the taps that reach them, and the dense map with all."""
        self.stage, self.n_taps, self.half = stage, len(kernel), len(kernel) // 2
        self.left = [_multiply(kernel[: self.half + 1 + i], x) for i, x in enumerate(stage.left)]
        self.right = [
            _multiply(kernel[max(0, self.half - i) :], x) for i, x in enumerate(stage.right)
        ]
        self.dense = _multiply(kernel, stage.dense)
        self._runs: dict[tuple[int, int], Tensor] = {}

    def at(self, position: int) -> list[Tensor]:
        """Terms of the convolution at one position, of the taps that lie inside the window."""
        stage, terms, dense = self.stage, [], []
        first = position - self.half
        for tap in range(max(0, -first), min(self.n_taps, stage.length - first)):
            from_right = stage.length - 1 - (first + tap)
            if first + tap < len(stage.left):
                terms.append(self.left[first + tap][tap])
            elif from_right < len(stage.right):
                terms.append(self.right[from_right][tap - self.n_taps])
            else:
                dense.append(tap)
        if dense:
            run = self._run(dense[0], dense[-1])
            terms.append(stage.on_days_of(first + dense[0], run))
        return terms

    def inside(self) -> list[Tensor]:
        """Terms of the convolution away from the edges, on the day of the first tap."""
        return self._parts(0, self.n_taps - 1)

    def _run(self, first: int, last: int) -> Tensor:
        """Sum over some taps along the dense map, on the day of the first of these taps."""
        if (first, last) not in self._runs:
            self._runs[first, last] = _total(self._parts(first, last))
        return self._runs[first, last]

    def _parts(self, first: int, last: int) -> list[Tensor]:
        """Terms of a run: a tap and the run without it.

        Taken off the beginning of runs to the kernel's end, off the end of others: the shorter
        runs are then those that edges need too.
        """
        stride = self.stage.stride
        n_days = self.dense.shape[-1] - (last - first) * stride
        if first == last:
            return [self.dense[first]]
        if last == self.n_taps - 1:
            tap, rest = self.dense[first], self._run(first + 1, last)
            return [tap.narrow(2, 0, n_days), rest.narrow(2, stride, n_days)]
        tap, rest = self.dense[last], self._run(first, last - 1)
        return [tap.narrow(2, (last - first) * stride, n_days), rest.narrow(2, 0, n_days)]


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
    n_cells, _, n_days = series.shape
    n_windows = n_days - model.config.window + 1
    result = np.empty((n_cells, n_windows, model.config.n_coefficients), np.float32)
    step = max(1, VALUES_AT_ONCE * workers(model.series_minimum.device) // n_days)
    with torch.inference_mode():
        network = fold(model)
        for start in range(0, n_cells, step):
            part = slice(start, start + step)
            stage = convolve(network, first_map(network, series[part], model.config.window))
            constant = torch.as_tensor(auxiliary[part], device=network.offset.device)
            features = gather(stage, model.normalise_auxiliary(constant))
            values = regress(network, features.flatten(1)).view(-1, *features.shape[1:])
            torch.from_numpy(result[part]).copy_(values.permute(1, 2, 0))
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


def workers(device: torch.device) -> int:
    """Threads of the CPU that compute together, or that a GPU stands for."""
    return torch.get_num_threads() if device.type == "cpu" else DEVICE_FACTOR


def first_map(network: FoldedNetwork, series: NDArray[np.float32], window: int) -> FeatureMap:
    """Series (cells, variables, T) less their minimum, as the map before the first stage."""
    days = torch.as_tensor(series, device=network.offset.device).transpose(0, 1)
    values = torch.sub(days, network.offset, out=network.offset.new_empty(days.shape))
    return FeatureMap(values, 0, 1, window, values.shape[2] - window + 1)


def convolve(network: FoldedNetwork, stage: FeatureMap) -> FeatureMap:
    """The map after the last stage."""
    for convolution in network.convolutions:
        stage = _pool(_convolve(stage, convolution), convolution.pool)
    return stage


def gather(stage: FeatureMap, auxiliary: Tensor) -> Tensor:
    """Features (features, cells, n_windows) from the last map and (cells, auxiliary features)."""
    n_channels, n_cells, _ = stage.dense.shape
    n_temporal, n_auxiliary = n_channels * stage.length, auxiliary.shape[1]
    features = auxiliary.new_empty(n_temporal + n_auxiliary, n_cells, stage.n_windows)
    temporal = features[:n_temporal].view(n_channels, stage.length, n_cells, stage.n_windows)
    for position in range(stage.length):
        temporal[:, position] = stage.at(position)
    features[n_temporal:] = auxiliary.t()[:, :, None]
    return features


def _convolve(stage: FeatureMap, convolution: Convolution) -> FeatureMap:
    """Convolution with zero padding at the ends of each window, then ReLU."""
    kernel, bias, _ = convolution
    products = TapProducts(stage, kernel)
    half = len(kernel) // 2
    n_left = min(len(stage.left) + half, stage.length)
    n_right = min(len(stage.right) + half, stage.length - n_left)
    last = stage.length - 1
    if n_left + n_right < stage.length:
        dense = _total([bias, *products.inside()]).relu_()
    else:  # every position is an edge: the dense map is not looked at again
        dense = products.dense[0]
    return replace(
        stage,
        dense=dense,
        first_day=stage.first_day + half * stage.stride,
        left=tuple(_total([bias, *products.at(i)]).relu_() for i in range(n_left)),
        right=tuple(_total([bias, *products.at(last - i)]).relu_() for i in range(n_right)),
    )


def _pool(stage: FeatureMap, size: int) -> FeatureMap:
    """Sum of ``size`` positions at a time."""

    def total(position: int) -> Tensor:
        return _total([stage.at(position * size + k) for k in range(size)])

    length = stage.length // size
    n_left = -(-len(stage.left) // size)
    n_right = min(-(-len(stage.right) // size), length - n_left)
    n_days = stage.dense.shape[2] - (size - 1) * stage.stride
    return replace(
        stage,
        dense=_total([stage.dense.narrow(2, k * stage.stride, n_days) for k in range(size)]),
        stride=stage.stride * size,
        length=length,
        left=tuple(total(i) for i in range(n_left)),
        right=tuple(total(length - 1 - i) for i in range(n_right)),
    )


def _multiply(kernel: Tensor, values: Tensor) -> Tensor:
    """Products (taps, out, cells, days) of taps (taps, out, in) and values (in, cells, days)."""
    product = kernel.flatten(0, 1) @ values.flatten(1)
    return product.view(*kernel.shape[:2], *values.shape[1:])


def _total(terms: list[Tensor]) -> Tensor:
    """Sum of the terms: a new array unless there is one term only."""
    if len(terms) == 1:
        return terms[0]
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total += term
    return total


def regress(network: FoldedNetwork, features: Tensor) -> Tensor:
    """Coefficients (heads, rows) of features (features, rows)."""
    n_features = len(features)
    n_rows = ROWS_AT_ONCE * workers(features.device)
    n_heads, width, _ = network.middle.weight.shape
    h3 = n_features + width
    parts = []
    for rows in features.split(n_rows, dim=1):
        values = rows.new_empty(h3 + width, rows.shape[1])
        values[:n_features] = rows
        _dense(network.first, values[:n_features], values[n_features:h3])
        _dense(network.second, values[:h3], values[h3:])
        hidden = _ramp(network.entry, values).view(n_heads, -1, rows.shape[1])
        hidden = _ramp(network.middle, hidden)
        parts.append((network.last @ hidden)[:, 0] + network.constant)
    return torch.cat(parts, dim=1)


def _dense(layers: list[Ramp], values: Tensor, out: Tensor) -> None:
    for layer in layers[:-1]:
        values = _ramp(layer, values)
    out.copy_(_ramp(layers[-1], values))


def _ramp(layer: Ramp, values: Tensor) -> Tensor:
    return (layer.weight @ values).clamp_(min=layer.lower)
