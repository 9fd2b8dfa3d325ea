"""Metrics of an estimate against a reference: additive statistics and a final function.

Series lie along the last axis; every leading axis is vectorised. Which values count is said by a
mask, never by NaN: a NaN that the mask lets through shows up in the result.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from deepprofile.evaluation.skill import kernels

Array = NDArray[np.float64]
OFFSET = 0.25
"""Value in m³ m⁻³ about which sums are taken, so that float64 loses nothing to cancellation."""
CONSTANT_VARIANCE = 1e-14
"""Variance in (m³ m⁻³)² below which a series counts as constant and has no correlation."""
WINDOW = 35
"""Days of the moving mean from which anomalies depart."""
WINDOW_DAYS = 18
"""Values that the moving mean needs: more than half of its days."""


@dataclass(frozen=True)
class Statistics:
    """Sums over days from which all metrics follow; add two for the days of both.

    Attributes:
        n: number of days, int64.
        x: sum of the estimate minus ``OFFSET``; ``xx`` its squares.
        y: sum of the reference minus ``OFFSET``; ``yy`` its squares.
        xy: sum of the products.
        d: sum of estimate minus reference; ``dd`` its squares.
    """

    n: NDArray[np.int64]
    x: Array
    y: Array
    xx: Array
    yy: Array
    xy: Array
    d: Array
    dd: Array

    @classmethod
    def of(cls, sums: Array) -> "Statistics":
        """Statistics of shape (...) from sums of shape (..., 8) in the order of the attributes."""
        n, *others = np.moveaxis(sums, -1, 0)
        return cls(n.astype(np.int64), *others)

    def __add__(self, other: "Statistics") -> "Statistics":
        """Statistics of the days of both."""
        return Statistics(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(Statistics))
        )


@dataclass(frozen=True)
class Metrics:
    """Metrics of series; NaN where they are not defined.

    Attributes:
        n: number of days.
        bias: mean of estimate minus reference, in the unit of the input.
        r: Pearson correlation; NaN where either series is constant.
        rmse: root mean square difference.
        ubrmse: root mean square difference after the bias is taken off.
        kge: Kling-Gupta efficiency; NaN where ``r`` is or where the reference's mean is 0.
    """

    n: NDArray[np.int64]
    bias: Array
    r: Array
    rmse: Array
    ubrmse: Array
    kge: Array


def accumulate(
    estimate: NDArray[np.floating], reference: NDArray[np.floating], mask: NDArray[np.bool_]
) -> Statistics:
    """Statistics of the days that ``mask`` lets through.

    Args:
        estimate: shape (..., time), m³ m⁻³.
        reference: shape broadcastable to that of ``estimate``.
        mask: True where a day counts, broadcastable too.

    Returns:
        Statistics of shape (...). A NaN inside the mask makes them NaN.
    """
    lead, x, y, mask = flat_series(estimate, reference, mask)
    return Statistics.of(kernels.sums(x, y, mask, OFFSET).reshape(*lead, kernels.N_SUMS))


def flat_series(
    estimate: NDArray[np.floating], reference: NDArray[np.floating], mask: NDArray[np.bool_]
) -> tuple[tuple[int, ...], Array, Array, NDArray[np.bool_]]:
    """The leading axes, and all three as contiguous (series, time) in float64 and bool."""
    arrays = np.broadcast_arrays(estimate, reference, mask)
    *lead, n_days = arrays[0].shape
    shape = (int(np.prod(lead, dtype=np.int64)), n_days)
    x, y = (np.ascontiguousarray(a.reshape(shape), dtype=np.float64) for a in arrays[:2])
    return tuple(lead), x, y, np.ascontiguousarray(arrays[2].reshape(shape), dtype=np.bool_)


def finish(statistics: Statistics, min_days: int = 2) -> Metrics:
    """Metrics from statistics; NaN for series of fewer than ``min_days`` days."""
    s = statistics
    n = np.where(s.n >= max(min_days, 1), s.n, np.nan)
    bias = s.d / n
    mean_square = s.dd / n
    variance_x, variance_y = _variances(s, n)
    varies = (variance_x > CONSTANT_VARIANCE) & (variance_y > CONSTANT_VARIANCE)
    spread_x = np.sqrt(np.where(varies, variance_x, np.nan))
    spread_y = np.sqrt(np.where(varies, variance_y, np.nan))
    r = (s.xy / n - s.x * s.y / n**2) / (spread_x * spread_y)
    return Metrics(
        n=s.n,
        bias=bias,
        r=r,
        rmse=np.sqrt(mean_square),
        ubrmse=np.sqrt(np.maximum(mean_square - bias**2, 0.0)),
        kge=_kling_gupta(r, spread_x / spread_y, s.x / n + OFFSET, s.y / n + OFFSET),
    )


def constant(statistics: Statistics) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the estimate, and whether the reference, hardly varies: the same as for ``r``."""
    n = np.maximum(statistics.n, 1).astype(np.float64)
    variance_x, variance_y = _variances(statistics, n)
    return ~(variance_x > CONSTANT_VARIANCE), ~(variance_y > CONSTANT_VARIANCE)


def compare(
    estimate: NDArray[np.floating],
    reference: NDArray[np.floating],
    mask: NDArray[np.bool_],
    min_days: int = 2,
) -> Metrics:
    """Metrics of whole series: :func:`accumulate` and :func:`finish` in one step."""
    return finish(accumulate(estimate, reference, mask), min_days)


def anomalies(
    values: NDArray[np.floating],
    mask: NDArray[np.bool_],
    window: int = WINDOW,
    min_days: int = WINDOW_DAYS,
) -> tuple[Array, NDArray[np.bool_]]:
    """Departures from a centred moving mean, which takes the season out of a daily series.

    Args:
        values: shape (..., time), regular in time.
        mask: True where a value counts, broadcastable.
        window: length of the moving mean in days, odd.
        min_days: values that a window must hold, its own day's included.

    Returns:
        The departures (0 where there is none) and a mask of where they exist.

    Raises:
        ValueError: if the window is even.
    """
    if window % 2 == 0:
        raise ValueError(f"window of {window} days has no centre: expected an odd number")
    lead, flat, _, flat_mask = flat_series(values, values, mask)
    found, exists = kernels.departures(flat, flat_mask, window // 2, min_days)
    shape = (*lead, flat.shape[1])
    return found.reshape(shape), exists.reshape(shape)


def _variances(s: Statistics, n: Array) -> tuple[Array, Array]:
    return s.xx / n - (s.x / n) ** 2, s.yy / n - (s.y / n) ** 2


def _kling_gupta(r: Array, spread_ratio: Array, mean_x: Array, mean_y: Array) -> Array:
    """One minus the distance from a perfect estimate in correlation, spread and mean.

    Gupta et al. (2009), doi:10.1016/j.jhydrol.2009.08.003, with equal weights.
    """
    mean_ratio = mean_x / np.where(mean_y == 0, np.nan, mean_y)
    distance = (r - 1) ** 2 + (spread_ratio - 1) ** 2 + (mean_ratio - 1) ** 2
    return np.asarray(1 - np.sqrt(distance))
