"""Metrics of an estimate against a reference: additive statistics and a final function.

Series lie along the last axis; every leading axis is vectorised. Which values count is said by a
mask, never by NaN: a NaN that the mask lets through shows up in the result.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
OFFSET = 0.25
"""Value in m³ m⁻³ about which sums are taken, so that float64 loses nothing to cancellation."""
CONSTANT_VARIANCE = 1e-14
"""Variance in (m³ m⁻³)² below which a series counts as constant and has no correlation."""


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
    """

    n: NDArray[np.int64]
    bias: Array
    r: Array
    rmse: Array
    ubrmse: Array


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
    estimate, reference, mask = np.broadcast_arrays(estimate, reference, mask)
    x = np.where(mask, estimate.astype(np.float64) - OFFSET, 0.0)
    y = np.where(mask, reference.astype(np.float64) - OFFSET, 0.0)
    d = x - y
    return Statistics(
        n=mask.sum(axis=-1, dtype=np.int64),
        x=x.sum(axis=-1),
        y=y.sum(axis=-1),
        xx=_dot(x, x),
        yy=_dot(y, y),
        xy=_dot(x, y),
        d=d.sum(axis=-1),
        dd=_dot(d, d),
    )


def finish(statistics: Statistics, min_days: int = 2) -> Metrics:
    """Metrics from statistics; NaN for series of fewer than ``min_days`` days."""
    s = statistics
    n = np.where(s.n >= max(min_days, 1), s.n, np.nan)
    bias = s.d / n
    mean_square = s.dd / n
    return Metrics(
        n=s.n,
        bias=bias,
        r=_correlation(s, n),
        rmse=np.sqrt(mean_square),
        ubrmse=np.sqrt(np.maximum(mean_square - bias**2, 0.0)),
    )


def compare(
    estimate: NDArray[np.floating],
    reference: NDArray[np.floating],
    mask: NDArray[np.bool_],
    min_days: int = 2,
) -> Metrics:
    """Metrics of whole series: :func:`accumulate` and :func:`finish` in one step."""
    return finish(accumulate(estimate, reference, mask), min_days)


def anomalies(
    values: NDArray[np.floating], mask: NDArray[np.bool_], window: int = 35, min_days: int = 18
) -> tuple[Array, NDArray[np.bool_]]:
    """Departures from a centred moving mean, which takes the season out of a daily series.

    Args:
        values: shape (..., time), regular in time.
        mask: True where a value counts.
        window: length of the moving mean in days, odd.
        min_days: values that a window must hold.

    Returns:
        The departures (0 where there is none) and a mask of where they exist.

    Raises:
        ValueError: if the window is even.
    """
    if window % 2 == 0:
        raise ValueError(f"window of {window} days has no centre: expected an odd number")
    total = _moving_sum(np.where(mask, values, 0.0), window)
    count = _moving_sum(mask.astype(np.float64), window)
    enough = mask & (count >= min_days)
    departure = np.asarray(values, dtype=np.float64) - total / np.maximum(count, 1.0)
    return np.where(enough, departure, 0.0), enough


def _moving_sum(values: Array, window: int) -> Array:
    half = window // 2
    pad = [(0, 0)] * (values.ndim - 1) + [(half + 1, half)]
    running = np.cumsum(np.pad(values, pad), axis=-1)
    return np.asarray(running[..., window:] - running[..., :-window])


def _correlation(s: Statistics, n: Array) -> Array:
    variance_x = s.xx / n - (s.x / n) ** 2
    variance_y = s.yy / n - (s.y / n) ** 2
    covariance = s.xy / n - s.x * s.y / n**2
    varies = (variance_x > CONSTANT_VARIANCE) & (variance_y > CONSTANT_VARIANCE)
    product = np.where(varies, variance_x * variance_y, np.nan)
    return np.asarray(covariance / np.sqrt(product))


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("...t,...t->...", a, b))
