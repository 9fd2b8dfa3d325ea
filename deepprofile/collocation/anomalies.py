"""Departures from a centred moving mean, which take the season out of a daily series.

The mean of 35 days is what error characterisation of soil moisture has long used (Albergel et al.
2009, doi:10.5194/hess-13-115-2009; Dorigo et al. 2010, doi:10.5194/hess-14-2605-2010). A
climatology by day of year would change with every month that is added, and with it every anomaly
before; a moving mean needs `MARGIN_DAYS` days on either side and nothing else.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from deepprofile.collocation.statistics import as_float

WINDOW_DAYS = 35
"""Days of the moving mean."""
MIN_DAYS = 18
"""Values that it needs: more than half of its days."""
MARGIN_DAYS = WINDOW_DAYS // 2
"""Days before and after a day on which its anomaly depends."""


def anomalies(
    values: NDArray[Any], window: int = WINDOW_DAYS, min_days: int = MIN_DAYS
) -> NDArray[Any]:
    """Departures of daily series from their own centred moving mean.

    Each mean is summed by itself, in the order of its days: an anomaly has the same bits from any
    part of the series that holds its window.

    Args:
        values: soil moisture in m³ m⁻³, shape (days, …), one day after the other; NaN (or infinite)
            where there is none. Before the first and after the last day there is none.
        window: days of the mean, odd.
        min_days: values that a window must hold.

    Returns:
        The shape and floating type of ``values``; NaN where there is no value or too few are
        around it.

    Raises:
        ValueError: if the window is even or not positive.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window of {window} days has no centre: expected an odd number")
    series = as_float(values)
    flat = np.ascontiguousarray(series.reshape(len(series), int(np.prod(series.shape[1:]))))
    found = np.empty_like(flat)
    _departures(flat, window // 2, min_days, found)
    return found.reshape(series.shape)


@numba.njit(nogil=True, cache=True)
def _departures(values: NDArray[Any], half: int, min_days: int, departures: NDArray[Any]) -> None:
    """Fill ``departures`` (days, pixels), a day at a time."""
    n_days, n_pixels = values.shape
    total, count = np.empty(n_pixels), np.empty(n_pixels)
    for day in range(n_days):
        total[:] = 0.0
        count[:] = 0.0
        for other in range(max(day - half, 0), min(day + half + 1, n_days)):
            for p in range(n_pixels):
                value = np.float64(values[other, p])
                finite = value - value == 0.0
                total[p] += value if finite else 0.0
                count[p] += 1.0 if finite else 0.0
        for p in range(n_pixels):
            value = np.float64(values[day, p])
            enough = value - value == 0.0 and count[p] >= min_days
            departures[day, p] = value - total[p] / count[p] if enough else np.nan
