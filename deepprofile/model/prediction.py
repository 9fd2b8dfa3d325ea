"""Prediction with a trained network: plain arrays in, profiles and flags out.

:func:`predict_days` is the kernel that both ``dp.predict`` and the jobs of the predict stage call.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepprofile.model.flags import Flag, window_flags
from deepprofile.model.gaps import MAX_GAP, fill_gaps
from deepprofile.model.network import DeepProfile
from deepprofile.model.sliding import sliding_coefficients


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
        land: (rows, columns), which cells to predict; all their features must be there.
        days: the days of ``forcing`` to predict.
        max_gap: gaps of at most so many days are filled by straight lines.
    """
    n_days, n_variables, *space = forcing.shape
    n_days = days.stop - days.start
    window = model.config.window
    begin = max(days.start, window - 1)
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
