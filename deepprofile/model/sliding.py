"""The network run along whole series instead of window by window; exact, and much quicker.

The convolutions run on feature maps of all days (:mod:`deepprofile.model.feature_map`); the
features of each window are picked from the last map and pass the dense layers and the heads.
What is taken together at a time is little enough to stay in the cache.
"""

import copy

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from deepprofile.model.feature_map import FeatureMap
from deepprofile.model.folding import FoldedNetwork, Ramp, fold
from deepprofile.model.network import DeepProfile

VALUES_AT_ONCE = 6_000
"""Cell-days of input that a thread takes together: what is live then stays in its cache."""
ROWS_AT_ONCE = 256
"""Windows that a thread passes through the dense layers together, likewise."""
DEVICE_FACTOR = 512
"""A GPU takes so many times more than a thread of the CPU."""


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
        stage = stage.convolve(convolution.kernel, convolution.bias).pool(convolution.pool)
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


def regress(network: FoldedNetwork, features: Tensor) -> Tensor:
    """Coefficients (heads, rows) of features (features, rows)."""
    n_features = len(features)
    n_rows = ROWS_AT_ONCE * workers(features.device)
    n_heads, width, _ = network.middle.weight.shape
    h3 = n_features + width
    parts = []
    for rows in torch.split(features, n_rows, dim=1):
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
