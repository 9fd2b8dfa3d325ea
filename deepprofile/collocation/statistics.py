"""Additive statistics of three collocated series, accumulated in one pass over memory.

For each pixel ten numbers are kept, in float64, over the days on which all three values are
finite: the number of days, three sums and six sums of products. They are taken about the fixed
offset of 0.25 m³ m⁻³, the middle of the physical range: a constant, and not a mean or a first
value, so that the statistics of two periods simply add, wherever each was computed.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

OFFSET = 0.25
"""Value about which sums and products are taken, in m³ m⁻³. Covariances do not depend on it."""
N_STATISTICS = 10
"""n, three sums (x, y, z), six sums of products (xx, yy, zz, xy, xz, yz), in this order."""
_STRIP = 256
"""Pixels taken together: their accumulators (20 kB) stay in the first-level cache."""


@dataclass(frozen=True)
class Statistics:
    """Sums over time from which triple collocation follows; adding two merges their periods.

    Attributes:
        sums: float64, shape (10, …): n, x, y, z, xx, yy, zz, xy, xz, yz of each pixel.
    """

    sums: NDArray[np.float64]

    def __add__(self, other: "Statistics") -> "Statistics":
        """Statistics of both periods together; no day may be in both."""
        return Statistics(self.sums + other.sums)

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> "Statistics":
        """Statistics of no day at all, for pixels of the given shape."""
        return cls(np.zeros((N_STATISTICS, *shape)))

    @property
    def n_samples(self) -> NDArray[np.int32]:
        """Number of days on which all three values are finite."""
        return np.asarray(self.sums[0], dtype=np.int32)


def accumulate(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> Statistics:
    """Statistics of three series of the same pixels and days.

    Single precision is read as it is and widened in registers. Arrays contiguous along pixels
    (time-major, as cubes give them) or along time (pixel-major) are read in place, once;
    another layout is copied first.

    Args:
        x: values in m³ m⁻³, shape (time, …); NaN or infinite where there is none.
        y: the second product, same shape.
        z: the third product, same shape.

    Returns:
        Statistics in the shape of the pixels.

    Raises:
        ValueError: if the shapes differ.
    """
    if not x.shape == y.shape == z.shape:
        raise ValueError(
            f"the three series have shapes {x.shape}, {y.shape} and {z.shape}: expected the same "
            "(time, …) for all. Bring them to common days and cells first."
        )
    n_pixels = int(np.prod(x.shape[1:]))
    series = [as_float(values).reshape(x.shape[0], n_pixels) for values in (x, y, z)]
    sums = np.zeros((N_STATISTICS, n_pixels))
    if all(values.strides[0] < values.strides[1] for values in series):
        first, second, third = (np.ascontiguousarray(values.T) for values in series)
        _add_pixels(first, second, third, sums)
    else:
        first, second, third = (np.ascontiguousarray(values) for values in series)
        _add_days(first, second, third, sums)
    return Statistics(sums.reshape(N_STATISTICS, *x.shape[1:]))


def count_days(
    values: NDArray[Any], pixels: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Days on which each chosen pixel has a value, and whether any of them has one on each day.

    Args:
        values: shape (time, …), NaN or infinite where there is none.
        pixels: True for the chosen pixels, shape (…).

    Returns:
        Number of days, shape (chosen pixels,), and a flag for each day, shape (time,).
    """
    flat = np.ascontiguousarray(as_float(values).reshape(len(values), -1))
    chosen = pixels.ravel()
    count = np.zeros(chosen.size, np.int32)
    present = np.zeros(len(values), np.bool_)
    _count(flat, chosen.view(np.uint8), count, present)
    return count[chosen], present


@numba.njit(nogil=True, cache=True)
def _count(
    values: NDArray[Any],
    chosen: NDArray[np.uint8],
    count: NDArray[np.int32],
    present: NDArray[np.bool_],
) -> None:
    for day in range(len(values)):
        row, found = values[day], np.int32(0)
        for p in range(len(chosen)):
            # Zero for a number, NaN otherwise: a comparison without a branch.
            there = np.int32(row[p] - row[p] == 0) & np.int32(chosen[p])
            count[p] += there
            found += there
        present[day] = found > 0


def as_float(values: NDArray[Any]) -> NDArray[Any]:
    """The same array in single or double precision; other types become float64."""
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


@numba.njit(inline="always")
def _centre(x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """1 and the values about the offset; four zeros where one of the values is not finite."""
    dx, dy, dz = x - OFFSET, y - OFFSET, z - OFFSET
    total = dx + dy + dz
    finite = total - total == 0.0  # one comparison, and no branch: the loop stays vectorised
    return (
        1.0 if finite else 0.0,
        dx if finite else 0.0,
        dy if finite else 0.0,
        dz if finite else 0.0,
    )


@numba.njit(nogil=True, fastmath={"contract"}, cache=True)
def _add_days(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any], sums: NDArray[np.float64]) -> None:
    """Add series of shape (time, pixels), two days for each load and store of the sums."""
    n_days, n_pixels = x.shape
    nothing = np.full(_STRIP, np.nan, x.dtype)
    strip_sums = np.zeros((N_STATISTICS, _STRIP))
    for start in range(0, n_pixels, _STRIP):
        stop = min(start + _STRIP, n_pixels)
        strip_sums[:] = 0.0
        for day in range(0, n_days, 2):
            x0, y0, z0 = x[day, start:stop], y[day, start:stop], z[day, start:stop]
            after = min(day + 1, n_days - 1)
            x1, y1, z1 = x[after, start:stop], y[after, start:stop], z[after, start:stop]
            if after == day:
                x1 = nothing[: stop - start]
            for p in range(stop - start):
                n, a, b, c = _centre(x0[p], y0[p], z0[p])
                m, d, e, f = _centre(x1[p], y1[p], z1[p])
                strip_sums[0, p] += n + m
                strip_sums[1, p] += a + d
                strip_sums[2, p] += b + e
                strip_sums[3, p] += c + f
                strip_sums[4, p] += a * a + d * d
                strip_sums[5, p] += b * b + e * e
                strip_sums[6, p] += c * c + f * f
                strip_sums[7, p] += a * b + d * e
                strip_sums[8, p] += a * c + d * f
                strip_sums[9, p] += b * c + e * f
        sums[:, start:stop] += strip_sums[:, : stop - start]


@numba.njit(nogil=True, fastmath={"contract", "reassoc"}, cache=True)
def _add_pixels(
    x: NDArray[Any], y: NDArray[Any], z: NDArray[Any], sums: NDArray[np.float64]
) -> None:
    """Add series of shape (pixels, time), the sums of one pixel held in registers."""
    n_pixels, n_days = x.shape
    for p in range(n_pixels):
        n = sx = sy = sz = sxx = syy = szz = sxy = sxz = syz = 0.0
        for day in range(n_days):
            one, a, b, c = _centre(x[p, day], y[p, day], z[p, day])
            n, sx, sy, sz = n + one, sx + a, sy + b, sz + c
            sxx, syy, szz = sxx + a * a, syy + b * b, szz + c * c
            sxy, sxz, syz = sxy + a * b, sxz + a * c, syz + b * c
        sums[:, p] += np.array((n, sx, sy, sz, sxx, syy, szz, sxy, sxz, syz))
