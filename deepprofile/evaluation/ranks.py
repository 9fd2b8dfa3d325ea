"""Spearman's correlation: Pearson's of the ranks of the common days."""

import numba
import numpy as np
from numpy.typing import NDArray

from deepprofile.evaluation import metrics

Array = NDArray[np.float64]


def spearman(
    estimate: NDArray[np.floating],
    reference: NDArray[np.floating],
    mask: NDArray[np.bool_],
    min_days: int = 2,
) -> Array:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Ranks need the whole series: unlike the statistics of `metrics.accumulate` they don't add up.

    Args:
        estimate: shape (..., time).
        reference: shape broadcastable to that of ``estimate``.
        mask: True where a day counts, broadcastable too.
        min_days: days below which it is NaN.

    Returns:
        Shape (...); NaN where either series is constant.
    """
    mask = np.asarray(mask)
    return metrics.compare(ranks(estimate, mask), ranks(reference, mask), mask, min_days).r


def ranks(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> Array:
    """Ranks along the last axis among the values that count, as shares of their number (0 to 1].

    Args:
        values: shape (..., time).
        mask: True where a value counts, broadcastable.

    Returns:
        The ranks, 0 where the mask is False, in the shape of both together.
    """
    values, mask = np.broadcast_arrays(np.asarray(values, dtype=np.float64), mask)
    flat = np.where(mask, values, np.inf).reshape(-1, values.shape[-1])
    number = mask.sum(axis=-1).ravel()
    found: Array = _mean_ranks(flat, np.argsort(flat, axis=-1), number)
    return found.reshape(values.shape)


@numba.njit(cache=True, nogil=True)
def _mean_ranks(values, order, number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    result = np.zeros(values.shape)
    for s in range(values.shape[0]):
        n = number[s]
        first = 0
        while first < n:
            last = first + 1
            while last < n and values[s, order[s, last]] == values[s, order[s, first]]:
                last += 1
            for place in range(first, last):
                result[s, order[s, place]] = (first + last + 1) / 2 / n
            first = last
    return result
