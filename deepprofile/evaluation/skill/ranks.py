"""Spearman's correlation: Pearson's of the ranks of the common days."""

import numpy as np
from numpy.typing import NDArray

from deepprofile.evaluation.skill import kernels

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
    mask = np.asarray(mask, dtype=np.bool_)
    return correlate_ranks(ranks(estimate, mask), ranks(reference, mask), mask, min_days)


def ranks(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> Array:
    """Ranks 1, 2, ... along the last axis among the values that count.

    Args:
        values: shape (..., time).
        mask: True where a value counts, broadcastable; such a value is finite.

    Returns:
        The ranks, 0 where the mask is False, in the shape of both together.
    """
    values, mask = np.broadcast_arrays(np.asarray(values, dtype=np.float64), mask)
    flat = np.where(mask, values, np.inf).reshape(-1, values.shape[-1])
    number = mask.sum(axis=-1).ravel()
    found: Array = kernels.mean_ranks(flat, np.argsort(flat, axis=-1), number)
    return found.reshape(values.shape)


def correlate_ranks(x: Array, y: Array, mask: NDArray[np.bool_], min_days: int = 2) -> Array:
    """Pearson's correlation of ranks from `ranks` of one mask.

    Args:
        x: shape (..., time).
        y: shape broadcastable to that of ``x``.
        mask: the mask of both, broadcastable too.
        min_days: days below which it is NaN.

    Returns:
        Shape (...); NaN where either series has one rank alone.
    """
    n = mask.sum(axis=-1).astype(np.float64)
    enough = np.where(n >= max(min_days, 1), n, np.nan)
    # Ranks are halves of whole numbers and 0 outside the mask: these sums are exact.
    total = n * (n + 1) ** 2 / 4
    xx, yy, xy = _dot(x, x) - total, _dot(y, y) - total, _dot(x, y) - total
    product = np.where((xx > 0) & (yy > 0), xx * yy, np.nan)
    return np.asarray(np.where(np.isfinite(enough), xy, np.nan) / np.sqrt(product))


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("...t,...t->...", a, b))
