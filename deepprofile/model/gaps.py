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
    n_filled = np.zeros((series.shape[0], series.shape[2]), np.int16)
    _fill(filled, n_filled, max_gap)
    return FilledSeries(filled, n_filled)


@numba.njit(nogil=True, cache=True)
def _fill(series: NDArray[np.float32], n_filled: NDArray[np.int16], max_gap: int) -> None:
    n_cells, n_variables, n_days = series.shape
    for cell in range(n_cells):
        for variable in range(n_variables):
            last = -1
            for day in range(n_days):
                value = series[cell, variable, day]
                if np.isnan(value):
                    continue
                gap = day - last - 1
                if last >= 0 and 0 < gap <= max_gap:
                    start = series[cell, variable, last]
                    for k in range(1, gap + 1):
                        step = (value - start) * np.float32(k) / np.float32(gap + 1)
                        series[cell, variable, last + k] = start + step
                        n_filled[cell, last + k] += 1
                last = day
