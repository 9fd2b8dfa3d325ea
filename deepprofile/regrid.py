"""Bilinear regridding from a regular latitude-longitude grid to the EASE-2 grid.

Latitude depends on the row alone and longitude on the column alone, so the weights are separable:
two short tables, one for each axis. A missing neighbour is left out and the other weights are
renormalised; a target needs at least half of the weight from valid neighbours, so that land does
not spread into the sea. A target outside the source axes is missing.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

MIN_WEIGHT = 0.5
"""Smallest sum of the weights of valid neighbours."""
_ROUNDING = 1e-9
"""Error allowed in a sum of weights, so that exactly one half is enough."""


@dataclass(frozen=True)
class AxisWeights:
    """The two neighbours of each target along one axis.

    Attributes:
        index: positions on the source axis, int64, shape (targets, 2).
        weight: their weights, float64, shape (targets, 2): they sum to 1, or to 0 for a target
            outside the source axis.
    """

    index: NDArray[np.int64]
    weight: NDArray[np.float64]

    def window(self) -> tuple[tuple[slice, ...], "AxisWeights"]:
        """The part of the source axis that is needed, and the weights on that part alone.

        Returns:
            One slice, or two where the targets lie across the end of a wrapping axis (none if no
            target is inside), and weights that index the slices laid end to end.
        """
        used = np.unique(self.index[self.weight > 0.0])
        slices = contiguous(used)
        positions = np.concatenate([np.arange(s.start, s.stop) for s in slices] or [used])
        index = np.searchsorted(positions, self.index).astype(np.int64)
        return slices, AxisWeights(np.where(self.weight > 0.0, index, 0), self.weight)


def contiguous(index: NDArray[np.int64]) -> tuple[slice, ...]:
    """Slices that hold the ascending positions ``index``, cut at the widest gap if there is one.

    At most two slices, so positions in narrower gaps are included too.
    """
    if index.size == 0:
        return ()
    gap = np.diff(index)
    if gap.size == 0 or gap.max() == 1:
        return (slice(int(index[0]), int(index[-1]) + 1),)
    cut = int(gap.argmax())
    return (
        slice(int(index[0]), int(index[cut]) + 1),
        slice(int(index[cut + 1]), int(index[-1]) + 1),
    )


def axis_weights(
    source: ArrayLike, target: ArrayLike, *, period: float | None = None
) -> AxisWeights:
    """Linear interpolation weights from one axis to another.

    Args:
        source: coordinates of the source axis, strictly ascending or descending, 2 or more.
        target: coordinates of the targets.
        period: 360 for longitudes: targets are then moved by whole turns towards the source axis,
            and an axis that goes all the way round wraps at its end.

    Raises:
        ValueError: if the source axis is not strictly monotonic or has fewer than two points.
    """
    axis = np.asarray(source, dtype=np.float64)
    points = np.asarray(target, dtype=np.float64)
    n = axis.size
    descending = n > 1 and axis[0] > axis[-1]
    axis = axis[::-1] if descending else axis
    if n < 2 or not (np.diff(axis) > 0.0).all():
        raise ValueError(
            f"a source axis must be strictly monotonic with at least 2 points; found {n} points, "
            f"{axis[:3]} … {axis[-3:]}"
        )
    if period is not None:
        points = axis[0] + (points - axis[0]) % period
        if axis[0] + period - axis[-1] <= 1.5 * (axis[1] - axis[0]):
            axis = np.append(axis, axis[0] + period)
    inside = (points >= axis[0]) & (points <= axis[-1])
    left = np.clip(np.searchsorted(axis, points, side="right") - 1, 0, axis.size - 2)
    fraction = (points - axis[left]) / (axis[left + 1] - axis[left])
    weight = np.stack([1.0 - fraction, fraction], axis=1) * inside[:, None]
    index = np.stack([left, left + 1], axis=1) % n
    return AxisWeights(n - 1 - index if descending else index, weight)


def bilinear(
    values: NDArray[np.floating], rows: AxisWeights, columns: AxisWeights
) -> NDArray[np.float32]:
    """Interpolate fields to the targets.

    Args:
        values: shape (fields, latitudes, longitudes), NaN where missing.
        rows: weights along the latitudes.
        columns: weights along the longitudes.

    Returns:
        float32, shape (fields, rows, columns), NaN where the weights of the valid neighbours sum
        to less than one half.
    """
    return np.asarray(_bilinear(values, rows.index, rows.weight, columns.index, columns.weight))


def lowest_neighbour(
    counts: NDArray[np.uint8], rows: AxisWeights, columns: AxisWeights
) -> NDArray[np.uint8]:
    """Smallest count among the neighbours of each target that have one.

    Args:
        counts: shape (latitudes, longitudes), 0 where missing.
        rows: weights along the latitudes.
        columns: weights along the longitudes.

    Returns:
        uint8, shape (rows, columns), 0 where the weights of the neighbours above 0 sum to less
        than one half: missing exactly where ``bilinear`` is.
    """
    return np.asarray(_lowest(counts, rows.index, rows.weight, columns.index, columns.weight))


@njit(cache=True, nogil=True)
def _bilinear(values, row_index, row_weight, column_index, column_weight):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    fields, n_rows, n_columns = values.shape[0], row_index.shape[0], column_index.shape[0]
    result = np.empty((fields, n_rows, n_columns), np.float32)
    for field in range(fields):
        for r in range(n_rows):
            for c in range(n_columns):
                total, weights = 0.0, 0.0
                for i in range(2):
                    for j in range(2):
                        weight = row_weight[r, i] * column_weight[c, j]
                        if weight > 0.0:
                            value = values[field, row_index[r, i], column_index[c, j]]
                            if not np.isnan(value):
                                total += weight * value
                                weights += weight
                enough = weights >= MIN_WEIGHT - _ROUNDING
                result[field, r, c] = total / weights if enough else np.nan
    return result


@njit(cache=True, nogil=True)
def _lowest(counts, row_index, row_weight, column_index, column_weight):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    result = np.zeros((row_index.shape[0], column_index.shape[0]), np.uint8)
    for r in range(result.shape[0]):
        for c in range(result.shape[1]):
            lowest, weights = 255, 0.0
            for i in range(2):
                for j in range(2):
                    weight = row_weight[r, i] * column_weight[c, j]
                    if weight > 0.0:
                        count = counts[row_index[r, i], column_index[c, j]]
                        if count > 0:
                            lowest = min(lowest, count)
                            weights += weight
            if weights >= MIN_WEIGHT - _ROUNDING:
                result[r, c] = lowest
    return result
