"""Sampling errors of triple collocation by a moving-block bootstrap.

Errors of soil moisture last for weeks, so days can't be drawn one by one: a replicate of the
series is put together from blocks of consecutive calendar days (Künsch 1989,
doi:10.1214/aos/1176347265), gaps included. A block's statistics are the difference of two
running sums, so a replicate costs one subtraction per block and not one pass over its days.
All pixels share the same blocks: a result does not depend on how the pixels are chunked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from deepprofile.collocation.estimates import Flag, check_scale, solve
from deepprofile.collocation.statistics import N_STATISTICS, OFFSET, as_float

BLOCK_DAYS = 60
"""Length of a block: twice the memory of a root-zone error."""
_SLAB = 512
"""Pixels copied to pixel-major order at a time, which bounds the memory used."""

_VALID = int(Flag.VALID)
_NON_POSITIVE = int(Flag.NON_POSITIVE_COVARIANCE)


@dataclass(frozen=True)
class SamplingErrors:
    """Standard errors over the replicates; the first axis holds the three products.

    Attributes:
        error_variance_std: of the error variance, in (m³ m⁻³)², shape (3, …), over the
            replicates whose covariances are all positive (negative error variances included).
        weight_std: of the weight, shape (3, …), over the valid replicates.
        valid_share: share of replicates that are valid, shape (…): how firmly a cell is valid.

    Both standard errors are NaN where fewer than two replicates qualify.
    """

    error_variance_std: NDArray[np.float64]
    weight_std: NDArray[np.float64]
    valid_share: NDArray[np.float64]


def draw_blocks(
    n_days: int, replicates: int, block_days: int = BLOCK_DAYS, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First day and the day after the last of every block of every replicate.

    Each replicate covers exactly ``n_days`` calendar days; its last block is cut to fit.

    Returns:
        Two arrays of shape (replicates, blocks).

    Raises:
        ValueError: if the series is shorter than a block, or there are fewer than 2 replicates.
    """
    if replicates < 2:
        raise ValueError(f"{replicates} bootstrap replicates give no spread: ask for 2 or more")
    if not 1 <= block_days <= n_days:
        raise ValueError(
            f"a block of {block_days} days does not fit a series of {n_days} calendar days: "
            "take a longer series, or shorter blocks and expect errors that are too small"
        )
    n_blocks = -(-n_days // block_days)
    generator = np.random.default_rng(seed)
    first = generator.integers(0, n_days - block_days + 1, size=(replicates, n_blocks))
    length = np.full(n_blocks, block_days)
    length[-1] = n_days - block_days * (n_blocks - 1)
    return first, first + length


def block_bootstrap(
    x: NDArray[Any],
    y: NDArray[Any],
    z: NDArray[Any],
    day: NDArray[np.integer[Any]],
    blocks: tuple[NDArray[np.int64], NDArray[np.int64]],
    scale: Sequence[float] = (1.0, 1.0, 1.0),
) -> SamplingErrors:
    """Standard errors of error variances and weights.

    Args:
        x: values in m³ m⁻³, shape (time, …).
        y: the second product, same shape.
        z: the third product, same shape.
        day: calendar day of each time step, counted from the first day of the series: gaps in
            the time axis stay gaps. Shape (time,).
        blocks: from ``draw_blocks`` for the same calendar days.
        scale: factor s of each product in its weight.

    Returns:
        Sampling errors in the shape of the pixels.

    Raises:
        ValueError: if the blocks were drawn for a longer series.
    """
    factors = check_scale(scale)
    series = [as_float(values).reshape(len(day), -1) for values in (x, y, z)]
    n_pixels = series[0].shape[1]
    n_days = int(day.max()) + 1
    if blocks[1].max() > n_days:
        raise ValueError(
            f"the blocks reach to day {blocks[1].max()}, but the series has {n_days} calendar "
            "days: draw blocks for this series"
        )
    result = np.empty((7, n_pixels))
    for start in range(0, n_pixels, _SLAB):
        slab = slice(start, start + _SLAB)
        a, b, c = (np.ascontiguousarray(values[:, slab].T) for values in series)
        _bootstrap(a, b, c, day, n_days, *blocks, factors, result[:, slab])
    shape = x.shape[1:]
    return SamplingErrors(
        result[:3].reshape(3, *shape), result[3:6].reshape(3, *shape), result[6].reshape(shape)
    )


@numba.njit(nogil=True)
def _running_sums(
    x: NDArray[Any],
    y: NDArray[Any],
    z: NDArray[Any],
    day: NDArray[np.integer[Any]],
    running: NDArray[np.float64],
) -> None:
    """Statistics of one pixel over the days before each calendar day, shape (days + 1, 10)."""
    running[:] = 0.0
    for t in range(len(day)):
        a, b, c = x[t] - OFFSET, y[t] - OFFSET, z[t] - OFFSET
        if np.isfinite(a + b + c):
            after = day[t] + 1
            running[after, 0] += 1.0
            running[after, 1] += a
            running[after, 2] += b
            running[after, 3] += c
            running[after, 4] += a * a
            running[after, 5] += b * b
            running[after, 6] += c * c
            running[after, 7] += a * b
            running[after, 8] += a * c
            running[after, 9] += b * c
    for d in range(1, len(running)):
        for k in range(N_STATISTICS):
            running[d, k] += running[d - 1, k]


@numba.njit(nogil=True)
def _bootstrap(
    x: NDArray[Any],
    y: NDArray[Any],
    z: NDArray[Any],
    day: NDArray[np.integer[Any]],
    n_days: int,
    first: NDArray[np.int64],
    stop: NDArray[np.int64],
    scale: NDArray[np.float64],
    result: NDArray[np.float64],
) -> None:
    """Series of shape (pixels, time) to rows of ``result``: 3 + 3 standard errors, share."""
    running = np.empty((n_days + 1, N_STATISTICS))
    sums = np.empty(N_STATISTICS)
    estimate = np.empty(6)  # error variances, weights
    signal = np.empty(3)
    for p in range(len(x)):
        _running_sums(x[p], y[p], z[p], day, running)
        count, mean, squares = np.zeros(6), np.zeros(6), np.zeros(6)
        for replicate in range(len(first)):
            sums[:] = 0.0
            for block in range(first.shape[1]):
                after, before = stop[replicate, block], first[replicate, block]
                for k in range(N_STATISTICS):
                    sums[k] += running[after, k] - running[before, k]
            flag = solve(sums, scale, 2, estimate[3:], estimate[:3], signal)
            known = 6 if flag == _VALID else 3 if flag > _NON_POSITIVE else 0
            for k in range(known):  # Welford's update
                count[k] += 1.0
                step = estimate[k] - mean[k]
                mean[k] += step / count[k]
                squares[k] += step * (estimate[k] - mean[k])
        for k in range(6):
            result[k, p] = np.sqrt(squares[k] / (count[k] - 1.0)) if count[k] > 1.0 else np.nan
        result[6, p] = count[5] / len(first)
