"""The network run on every window by itself: the plain way, and the measure of the quick one.

It repeats the convolutions of the days that windows share; see :mod:`deepprofile.model.sliding`.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from deepprofile.model.network import DeepProfile
from deepprofile.model.samples import cut_windows, full_windows

BATCH_SIZE = 128
"""Windows of a batch: its feature maps still fit the cache (measured: 64 to 128 are quickest)."""
CELLS_AT_ONCE = 64


def predict_windows(
    model: DeepProfile,
    series: NDArray[np.float32],
    auxiliary: NDArray[np.float32],
    batch_size: int = BATCH_SIZE,
) -> NDArray[np.float32]:
    """Coefficients of every window of the series, one network evaluation a window.

    Args:
        model: the network; evaluated in evaluation mode whatever its own mode is.
        series: (cells, variables, T) in raw units.
        auxiliary: (cells, features) in raw units.
        batch_size: windows evaluated together.

    Returns:
        (cells, T - window + 1, n), NaN where a value of the window or a feature is missing.

    Raises:
        ValueError: if the shapes don't fit the model, or T is shorter than a window.
    """
    check_shapes(model, series, auxiliary)
    model = evaluation_model(model)
    n_windows = series.shape[2] - model.config.window + 1
    shape = (len(series), n_windows, model.config.n_coefficients)
    result = np.full(shape, np.nan, np.float32)
    for start in range(0, len(series), CELLS_AT_ONCE):
        part = slice(start, start + CELLS_AT_ONCE)
        _predict_cells(model, series[part], auxiliary[part], batch_size, result[part])
    return result


def evaluation_model(model: DeepProfile) -> DeepProfile:
    """The model itself in evaluation mode, or such a copy of a model in training mode."""
    return copy.deepcopy(model).eval() if model.training else model


@torch.inference_mode()
def _predict_cells(
    model: DeepProfile,
    series: NDArray[np.float32],
    auxiliary: NDArray[np.float32],
    batch_size: int,
    result: NDArray[np.float32],
) -> None:
    device = model.series_minimum.device
    window = model.config.window
    normal = model.normalise_series(torch.as_tensor(series, device=device))
    normal = normal.transpose(1, 2).contiguous()
    features = model.normalise_auxiliary(torch.as_tensor(auxiliary, device=device))
    complete = ~normal.isnan().any(2) & ~features.isnan().any(1)[:, None]
    for part in torch.split(full_windows(complete, window).nonzero(), batch_size):
        cell, end = part.unbind(1)
        temporal = model.extractor(cut_windows(normal, cell, end, window))
        values = model.coefficients(temporal, features[cell])
        result[cell.cpu(), end.cpu() - window + 1] = values.cpu().numpy()


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
