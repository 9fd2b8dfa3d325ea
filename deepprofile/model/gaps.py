"""Short gaps in a series of days, filled by straight lines."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

MAX_GAP = 3
"""Longest gap in days that is filled by default."""


class FilledSeries(NamedTuple):
    """A series without its short gaps.

    Attributes:
        series: (cells, variables, T) f4; NaN remains in longer gaps and at both ends.
        n_filled: (cells, T) i2, how many variables were filled on that day.
    """

    series: NDArray[np.float32]
    n_filled: NDArray[np.int16]


def fill_gaps(series: NDArray[np.float32], max_gap: int = MAX_GAP) -> FilledSeries:
    """Fill gaps (NaN) of at most ``max_gap`` days that have a value on both sides.

    Args:
        series: (cells, variables, T); not changed.
        max_gap: longest gap in days that is filled; 0 fills none.

    Raises:
        ValueError: if the series has not three dimensions or ``max_gap`` is negative.
    """
    if series.ndim != 3 or max_gap < 0:
        raise ValueError(
            f"series has shape {series.shape} and max_gap is {max_gap}: expected (cells, "
            "variables, days) and 0 or more days"
        )
    filled = np.array(series, dtype=np.float32, order="C")
    n_missing, n_filled = np.zeros((2, series.shape[0], series.shape[2]), np.int16)
    _fill(filled, n_missing, n_filled, max_gap)
    return FilledSeries(filled, n_filled)


@numba.njit(nogil=True, cache=True)
def _fill(
    series: NDArray[np.float32],
    n_missing: NDArray[np.int16],
    n_filled: NDArray[np.int16],
    max_gap: int,
) -> None:
    n_cells, n_variables, n_days = series.shape
    for cell in range(n_cells):
        for variable in range(n_variables):
            fill_days(series[cell, variable], 0, n_days, max_gap, n_missing[cell], n_filled[cell])


@numba.njit(nogil=True, cache=True)
def fill_days(
    values: NDArray[np.float32],
    start: int,
    stop: int,
    max_gap: int,
    n_missing: NDArray[np.int16],
    n_filled: NDArray[np.int16],
) -> None:
    """Fill the short gaps of one series that end on new days, and count (compiled).

    A gap that reaches beyond the new days is filled when the day after it has come.

    Args:
        values: (T,), changed in place.
        start: the first new day; what lies before has been filled already.
        stop: the day after the last new one.
        max_gap: longest gap in days that is filled.
        n_missing: (T,), gets 1 more on days that are missing and 1 less on those filled.
        n_filled: (T,), gets 1 more on days that were filled.
    """
    last = _last_value(values, start, max_gap)
    for day in range(start, stop):
        value = values[day]
        if np.isnan(value):
            n_missing[day] += 1
            continue
        gap = day - last - 1
        if last >= 0 and 0 < gap <= max_gap:
            begin = values[last]
            for k in range(1, gap + 1):
                values[last + k] = begin + (value - begin) * np.float32(k) / np.float32(gap + 1)
                n_missing[last + k] -= 1
                n_filled[last + k] += 1
        last = day


@numba.njit(nogil=True, cache=True)
def _last_value(values: NDArray[np.float32], start: int, max_gap: int) -> int:
    """The last day before ``start`` with a value, -1 if none is near enough to fill from."""
    for day in range(start - 1, max(-1, start - max_gap - 2), -1):
        if not np.isnan(values[day]):
            return day
    return -1
