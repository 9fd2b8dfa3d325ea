"""Prediction with a trained network: plain arrays in, coefficients or profiles and flags out.

:func:`predict_days` is the kernel that both ``dp.predict`` and the jobs of the predict stage call.
:func:`predict_windows` runs the network on every window by itself: the plain way, and the measure
of the quick one.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deepprofile.model.flags import Flag, window_flags
from deepprofile.model.gaps import MAX_GAP, fill_gaps
from deepprofile.model.network import DeepProfile
from deepprofile.model.samples import cut_windows, full_windows
from deepprofile.model.sliding import check_shapes, evaluation_model, sliding_coefficients

BATCH_SIZE = 128
"""Windows of a batch: its feature maps still fit the cache (measured: 64 to 128 are quickest)."""
CELLS_AT_ONCE = 64


class Profiles(NamedTuple):
    """Predicted profiles of some days of a rectangle of cells.

    Attributes:
        coefficients: (days, n, rows, columns) f4, NaN where the flag says there is no profile.
        flag: (days, rows, columns) u1, see :class:`~deepprofile.model.flags.Flag`.
    """

    coefficients: NDArray[np.float32]
    flag: NDArray[np.uint8]


def predict_days(
    model: DeepProfile,
    forcing: NDArray[np.float32],
    auxiliary: NDArray[np.float32],
    land: NDArray[np.bool_],
    days: slice,
    max_gap: int = MAX_GAP,
) -> Profiles:
    """Profiles of some days of a rectangle of cells.

    To give each day the same value whatever span is asked for, ``forcing`` must reach
    :func:`margins` days beyond ``days`` on both sides, as far as there are data.

    Args:
        model: the network.
        forcing: (T, variables, rows, columns) of consecutive days in raw units.
        auxiliary: (features, rows, columns) in raw units.
        land: (rows, columns), which cells to predict; one without all its features is not land.
        days: the days of ``forcing`` to predict.
        max_gap: gaps of at most so many days are filled by straight lines.
    """
    _, n_variables, *space = forcing.shape
    n_days = days.stop - days.start
    window = model.config.window
    begin = max(days.start, window - 1)
    land = land & ~np.isnan(auxiliary).any(axis=0)
    cells = np.flatnonzero(land)
    coefficients = np.full((n_days, model.config.n_coefficients, land.size), np.nan, np.float32)
    flag = np.full((n_days, land.size), Flag.NO_FULL_WINDOW, np.uint8)
    if begin < days.stop and cells.size:
        columns = forcing.reshape(len(forcing), n_variables, -1).transpose(2, 1, 0)[cells]
        series, n_filled = fill_gaps(columns, max_gap)
        span = slice(begin - window + 1, days.stop)
        features = auxiliary.reshape(len(auxiliary), -1).T[cells]
        profiles = sliding_coefficients(model, series[:, :, span], features)
        missing: NDArray[np.bool_] = np.any(np.isnan(series[:, :, span]), axis=1)
        flags = window_flags(missing, n_filled[:, span] > 0, window)
        coefficients[begin - days.start :, :, cells] = profiles.transpose(1, 2, 0)
        flag[begin - days.start :, cells] = flags.T
    flag[:, ~land.ravel()] = Flag.NOT_LAND
    return Profiles(coefficients.reshape(n_days, -1, *space), flag.reshape(n_days, *space))


def margins(window: int, max_gap: int = MAX_GAP) -> tuple[int, int]:
    """Days of forcing needed before the first and after the last day of a prediction."""
    return window - 1 + max_gap, max_gap


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
