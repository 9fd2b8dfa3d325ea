"""Prediction with a trained network: plain arrays in, coefficients or profiles and flags out.

:func:`predict_series` is the kernel of all prediction: ``dp.predict`` reaches it through
:func:`predict_days`, the jobs of the predict stage through :mod:`deepprofile.model.streaming`.
:func:`predict_windows` runs the network on every window by itself: the plain way, and the measure
of the quick one.
"""

from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from deepprofile.model.device import exclusive
from deepprofile.model.flags import Flag, window_flags
from deepprofile.model.gaps import MAX_GAP
from deepprofile.model.network import DeepProfile
from deepprofile.model.rolling import RollingSeries
from deepprofile.model.samples import cut_windows, full_windows
from deepprofile.model.sliding import check_shapes, evaluation_model, sliding_coefficients

BATCH_SIZE = 128
"""Windows of a batch: its feature maps still fit the cache (measured: 64 to 128 are quickest)."""
CELLS_AT_ONCE = 64
CELLS_TOGETHER = 16
"""Cells whose profiles are turned together: one line of the cache holds them."""


class Profiles(NamedTuple):
    """Predicted profiles of some days of a rectangle of cells.

    Attributes:
        coefficients: (days, n, rows, columns) f4, NaN where the flag says there is no profile.
        flag: (days, rows, columns) u1, see :class:`~deepprofile.model.flags.Flag`.
    """

    coefficients: NDArray[np.float32]
    flag: NDArray[np.uint8]


class PredictedSeries(NamedTuple):
    """Predicted profiles of some cells on consecutive days.

    Attributes:
        first: the first day.
        coefficients: (cells, days, n) f4, NaN where the flag says there is no profile.
        flag: (cells, days) u1.
    """

    first: int
    coefficients: NDArray[np.float32]
    flag: NDArray[np.uint8]


class Rectangle:
    """A rectangle of cells: which of them can have profiles, and their features.

    Attributes:
        cells: indices of the land cells with all features, in the flattened rectangle.
        features: (cells, features) of these, in raw units.
    """

    def __init__(self, land: NDArray[np.bool_], auxiliary: NDArray[np.float32]) -> None:
        """Look at land (rows, columns) and auxiliary features (features, rows, columns)."""
        complete = np.isfinite(auxiliary).all(axis=0)
        flag = np.where(complete, Flag.NO_FULL_WINDOW, Flag.MISSING_FEATURES)
        self._without = np.where(land, flag, Flag.NOT_LAND).astype(np.uint8)
        self.cells = np.flatnonzero(land & complete)
        features = auxiliary.reshape(len(auxiliary), -1)[:, self.cells]
        self.features = np.ascontiguousarray(features.T, dtype=np.float32)

    def profiles(self, predicted: PredictedSeries, days: slice) -> Profiles:
        """The profiles of some days in the order of a cube.

        Args:
            predicted: of :attr:`cells`; days before its first have no full window.
            days: the days.
        """
        n_days, n, space = days.stop - days.start, predicted.coefficients.shape[2], self.shape
        coefficients = np.full((n_days, n, self._without.size), np.nan, np.float32)
        flag = np.repeat(self._without.reshape(1, -1), n_days, axis=0)
        skipped = min(n_days, max(0, predicted.first - days.start))
        part = slice(days.start + skipped - predicted.first, days.stop - predicted.first)
        if skipped < n_days:
            _turn(predicted.coefficients[:, part], self.cells, coefficients[skipped:])
            flag[skipped:, self.cells] = predicted.flag[:, part].T
        return Profiles(coefficients.reshape(n_days, n, *space), flag.reshape(n_days, *space))

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self._without.shape


def predict_days(
    model: DeepProfile,
    forcing: NDArray[np.float32],
    auxiliary: NDArray[np.float32],
    land: NDArray[np.bool_],
    days: slice,
    max_gap: int = MAX_GAP,
    precision: str = "float32",
) -> Profiles:
    """Profiles of some days of a rectangle of cells.

    To give each day the same value whatever span is asked for, ``forcing`` must reach
    :func:`margins` days beyond ``days`` on both sides, as far as there are data.

    Args:
        model: the network.
        forcing: (T, variables, rows, columns) of consecutive days in raw units.
        auxiliary: (features, rows, columns) in raw units.
        land: (rows, columns), which cells to predict.
        days: the days of ``forcing`` to predict.
        max_gap: gaps of at most so many days are filled by straight lines.
        precision: of the products, see :func:`~deepprofile.model.sliding.sliding_coefficients`.
    """
    rectangle = Rectangle(land, auxiliary)
    series = RollingSeries(rectangle.cells, forcing.shape[1], len(forcing), 0, max_gap)
    series.append(forcing)
    predicted = predict_series(model, series, rectangle.features, days, precision)
    return rectangle.profiles(predicted, days)


def predict_series(
    model: DeepProfile,
    series: RollingSeries,
    features: NDArray[np.float32],
    days: slice,
    precision: str = "float32",
) -> PredictedSeries:
    """Profiles of those of some days that have a full window.

    Args:
        model: the network; it computes on the device on which it lies, one thread at a time
            where this is a GPU.
        series: forcing of the cells, up to :func:`margins` days beyond ``days``.
        features: (cells, features) in raw units.
        days: the days.
        precision: see :func:`~deepprofile.model.sliding.sliding_coefficients`.
    """
    window = model.config.window
    begin = max(days.start, series.first + window - 1)
    if begin >= days.stop or not len(features):
        shape = len(features), max(0, days.stop - begin)
        empty = np.empty((*shape, model.config.n_coefficients), np.float32)
        return PredictedSeries(begin, empty, np.empty(shape, np.uint8))
    span = begin - window + 1, days.stop
    flag = window_flags(series.n_missing(*span), series.n_filled(*span), window)
    with exclusive(model.series_minimum.device):
        coefficients = sliding_coefficients(
            model, series.values(*span), features, precision=precision
        )
    return PredictedSeries(begin, coefficients, flag)


@numba.njit(nogil=True, cache=True)
def _turn(profiles: NDArray[np.float32], cells: NDArray[np.intp], out: NDArray[np.float32]) -> None:
    """Coefficients (cells, days, n) into (days, n, all cells)."""
    n_days, n, _ = out.shape
    for begin in range(0, cells.size, CELLS_TOGETHER):
        end = min(begin + CELLS_TOGETHER, cells.size)
        for day in range(n_days):
            for degree in range(n):
                for cell in range(begin, end):
                    out[day, degree, cells[cell]] = profiles[cell, day, degree]


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
