"""From statistics to error variances, weights and flags.

The error variance of a product with two partners is what its variance holds beyond the signal
that all three share: σ²_x = Q_xx − Q_xy Q_xz / Q_yz, with Q the sample covariances (Stoffelen
1998, doi:10.1029/97JC03180; covariance notation as in Gruber et al. 2016,
doi:10.1016/j.jag.2015.09.002). Equation 5 of Zhu et al. (2026) prints the second term alone.
The squared correlation with the truth is the signal's share of a product's variance (McColl et al.
2014, doi:10.1002/2014GL061322).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from deepprofile.collocation.statistics import Statistics

MIN_SAMPLES = 100
"""Days with all three products that an estimate needs unless told otherwise."""
_ROUNDING = 1e-12
"""A covariance below this share of the raw second moments is rounding, not signal."""


class Flag(IntEnum):
    """Whether triple collocation holds in a cell, and if not the first reason found."""

    VALID = 0
    TOO_FEW_DAYS = 1
    NON_POSITIVE_COVARIANCE = 2
    NEGATIVE_ERROR_VARIANCE_1 = 3
    NEGATIVE_ERROR_VARIANCE_2 = 4
    NEGATIVE_ERROR_VARIANCE_3 = 5


def flag_attributes(products: Sequence[str] = ("1", "2", "3")) -> dict[str, Any]:
    """CF attributes of a flag variable, naming the three products in their order."""
    negative = [f"negative_error_variance_of_{product}" for product in products]
    meanings = ["valid", "too_few_days", "non_positive_covariance", *negative]
    return {
        "long_name": "validity of triple collocation",
        "flag_values": np.array([flag.value for flag in Flag], dtype=np.uint8),
        "flag_meanings": " ".join(meanings),
        "comment": "negative means not above zero beyond rounding",
    }


_VALID, _TOO_FEW, _NON_POSITIVE, _NEGATIVE_1, _NEGATIVE_2, _NEGATIVE_3 = map(int, Flag)


@dataclass(frozen=True)
class Estimates:
    """What triple collocation says of each pixel; the first axis holds the three products.

    Attributes:
        weight: share of each product, sum 1, shape (3, …); NaN where the flag is not valid.
        error_variance: σ² in (m³ m⁻³)², with its sign as found, so that a flagged cell can be
            looked into; NaN where days are too few or a covariance is exactly zero.
        sensitivity: variance of the common signal as the product shows it, Q_xy Q_xz / Q_yz,
            in (m³ m⁻³)²; NaN as the error variance.
        signal_to_noise: 10 log10(sensitivity / error variance) in dB; NaN unless both are
            positive.
        r_squared: squared correlation of the product with the common signal,
            sensitivity / (sensitivity + error variance); NaN as the signal-to-noise ratio.
        n_samples: days used, int32, shape (…).
        flag: ``Flag``, uint8, shape (…).
    """

    weight: NDArray[np.float64]
    error_variance: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    signal_to_noise: NDArray[np.float64]
    r_squared: NDArray[np.float64]
    n_samples: NDArray[np.int32]
    flag: NDArray[np.uint8]


def finish(
    statistics: Statistics,
    scale: Sequence[float] = (1.0, 1.0, 1.0),
    min_samples: int = MIN_SAMPLES,
) -> Estimates:
    """Error variances, weights and flags from accumulated statistics.

    A cell is valid where there are at least ``min_samples`` days, all three covariances are
    positive and so are all three error variances. Weights are ∝ scale / error variance.

    Args:
        statistics: sums over all days, shape (10, …).
        scale: factor s of each product in its weight.
        min_samples: fewest days.

    Raises:
        ValueError: if ``scale`` is not three positive numbers or ``min_samples`` is below 2.
    """
    factors = check_scale(scale)
    if min_samples < 2:
        raise ValueError(f"min_samples is {min_samples}: a covariance needs at least 2 days")
    shape = statistics.sums.shape[1:]
    sums = np.ascontiguousarray(statistics.sums.reshape(statistics.sums.shape[0], -1).T)
    weight, error, signal = (np.full((3, len(sums)), np.nan) for _ in range(3))
    flag = np.empty(len(sums), dtype=np.uint8)
    _solve_all(sums, factors, min_samples, weight, error, signal, flag)
    positive = (error > 0) & (signal > 0)
    ratio = np.divide(signal, error, out=np.full_like(signal, np.nan), where=positive)
    r_squared = ratio / (1.0 + ratio)
    return Estimates(
        weight.reshape(3, *shape),
        error.reshape(3, *shape),
        signal.reshape(3, *shape),
        10.0 * np.log10(ratio).reshape(3, *shape),
        r_squared.reshape(3, *shape),
        statistics.n_samples,
        flag.reshape(shape),
    )


def check_scale(scale: Sequence[float]) -> NDArray[np.float64]:
    """The three factors as an array; raises ValueError unless all are positive and finite."""
    factors = np.asarray(scale, dtype=np.float64)
    if factors.shape != (3,) or not np.all(np.isfinite(factors) & (factors > 0)):
        raise ValueError(
            f"scale is {scale!r}: expected three positive numbers, one for each product in order"
        )
    return factors


@numba.njit(nogil=True, cache=True)
def solve(
    sums: NDArray[np.float64],
    scale: NDArray[np.float64],
    min_samples: int,
    weight: NDArray[np.float64],
    error: NDArray[np.float64],
    signal: NDArray[np.float64],
) -> int:
    """Triple collocation of one pixel: fills three vectors of 3 and returns the flag.

    ``error`` and ``signal`` are filled where there are enough days and no covariance is zero,
    ``weight`` where the flag is valid; the rest is left as it was.
    """
    n = sums[0]
    if n < min_samples:
        return _TOO_FEW
    x, y, z = sums[1] / n, sums[2] / n, sums[3] / n
    xx, yy, zz = sums[4] / n, sums[5] / n, sums[6] / n
    sample = n / (n - 1.0)
    q_xy = (sums[7] / n - x * y) * sample
    q_xz = (sums[8] / n - x * z) * sample
    q_yz = (sums[9] / n - y * z) * sample
    if q_xy == 0.0 or q_xz == 0.0 or q_yz == 0.0:
        return _NON_POSITIVE
    signal[0], signal[1], signal[2] = q_xy * q_xz / q_yz, q_xy * q_yz / q_xz, q_xz * q_yz / q_xy
    error[0] = (xx - x * x) * sample - signal[0]
    error[1] = (yy - y * y) * sample - signal[1]
    error[2] = (zz - z * z) * sample - signal[2]
    if (
        q_xy <= _ROUNDING * np.sqrt(xx * yy)
        or q_xz <= _ROUNDING * np.sqrt(xx * zz)
        or q_yz <= _ROUNDING * np.sqrt(yy * zz)
    ):
        return _NON_POSITIVE
    # With positive covariances two error variances cannot both be negative: that would need a
    # correlation above 1. One flag value for each product is therefore enough.
    if error[0] <= _ROUNDING * xx:
        return _NEGATIVE_1
    if error[1] <= _ROUNDING * yy:
        return _NEGATIVE_2
    if error[2] <= _ROUNDING * zz:
        return _NEGATIVE_3
    total = scale[0] / error[0] + scale[1] / error[1] + scale[2] / error[2]
    for product in range(3):
        weight[product] = scale[product] / error[product] / total
    return _VALID


@numba.njit(nogil=True, cache=True)
def _solve_all(
    sums: NDArray[np.float64],
    scale: NDArray[np.float64],
    min_samples: int,
    weight: NDArray[np.float64],
    error: NDArray[np.float64],
    signal: NDArray[np.float64],
    flag: NDArray[np.uint8],
) -> None:
    for p in range(len(sums)):
        flag[p] = solve(sums[p], scale, min_samples, weight[:, p], error[:, p], signal[:, p])
