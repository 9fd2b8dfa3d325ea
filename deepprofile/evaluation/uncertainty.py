"""Confidence of metrics by a moving-block bootstrap, of one estimate and of two compared.

Soil moisture of one day is nearly that of the day before, so days can't be drawn one by one: a
replicate is put together from blocks of consecutive calendar days, gaps included (Künsch 1989,
doi:10.1214/aos/1176347265). Metrics follow from sums over days (`metrics.Statistics`), so a block
is eight numbers. All series share the blocks: metrics of two estimates on the same days come from
the same replicates, and their difference has an interval of its own (a paired comparison).
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from deepprofile.evaluation.metrics import OFFSET, Metrics, Statistics, finish

Array = NDArray[np.float64]
BLOCK_DAYS = 60
"""Length of a block: about twice the memory of soil moisture in the root zone."""
MIN_BLOCKS = 5
"""Blocks that a series must be long for an interval."""
REPLICATES = 500
LEVEL = 0.95
KNOWN_SHARE = 0.9
"""Share of the replicates that must have a metric for its interval."""
_N_SUMS = 8


@dataclass(frozen=True)
class Interval:
    """A confidence interval; NaN where there is none.

    Attributes:
        low: lower end, shape (...).
        high: upper end, same shape.
    """

    low: Array
    high: Array


def first_days(
    n_days: int, replicates: int = REPLICATES, block_days: int = BLOCK_DAYS, seed: int = 0
) -> NDArray[np.int64]:
    """First day of every block of every replicate.

    A replicate is as long as the series, rounded up to whole blocks.

    Args:
        n_days: calendar days of the series.
        replicates: number of replicates.
        block_days: length of a block.
        seed: of the draw.

    Returns:
        Shape (replicates, blocks); no blocks at all where the series is too short for intervals.
    """
    n_blocks = -(-n_days // block_days) if n_days >= MIN_BLOCKS * block_days else 0
    last = max(n_days - block_days, 0)
    return np.random.default_rng(seed).integers(0, last + 1, size=(replicates, n_blocks))


def replicate_metrics(
    estimate: NDArray[np.floating],
    reference: NDArray[np.floating],
    mask: NDArray[np.bool_],
    blocks: NDArray[np.int64],
    block_days: int = BLOCK_DAYS,
    min_days: int = 2,
) -> Metrics:
    """Metrics of every replicate of every series.

    Args:
        estimate: shape (..., time), a value a calendar day, m³ m⁻³.
        reference: shape broadcastable to that of ``estimate``.
        mask: True where a day counts, broadcastable too.
        blocks: from `first_days` for this many days.
        block_days: length of a block.
        min_days: days that a replicate must have for a metric.

    Returns:
        Metrics of shape (..., replicates).

    Raises:
        ValueError: if the blocks were drawn for a longer series.
    """
    x, y, mask = np.broadcast_arrays(estimate, reference, mask)
    lead, n_days = x.shape[:-1], x.shape[-1]
    if blocks.size and blocks.max() + block_days > n_days:
        raise ValueError(
            f"blocks reach to day {blocks.max() + block_days}, but the series has {n_days}: draw "
            "them for this series"
        )
    if x.dtype != y.dtype:
        x, y = x.astype(np.float64), y.astype(np.float64)
    x, y, mask = (np.ascontiguousarray(a.reshape(-1, n_days)) for a in (x, y, mask))
    sums = _replicates(x, y, mask, blocks, block_days, OFFSET)
    sums = sums.reshape(*lead, len(blocks), _N_SUMS)
    n, *others = np.moveaxis(sums, -1, 0)
    return finish(Statistics(n.astype(np.int64), *others), min_days)


def interval(values: Array, level: float = LEVEL) -> Interval:
    """Percentile interval of replicates of one metric.

    Args:
        values: shape (..., replicates); of a difference for a paired comparison.
        level: share of the replicates inside.

    Returns:
        Shape (...); NaN where more than a tenth of the replicates has no value.

    Raises:
        ValueError: if ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: expected a share between 0 and 1, such as {LEVEL}")
    shape = values.shape[:-1]
    low, high = np.full(shape, np.nan), np.full(shape, np.nan)
    known = np.isfinite(values)
    enough = known.mean(axis=-1) >= KNOWN_SHARE if values.shape[-1] else np.zeros(shape, bool)
    for ends, part in (enough & known.all(axis=-1), np.quantile), (enough, np.nanquantile):
        todo = ends & np.isnan(low)
        if todo.any():
            tails = ((1 - level) / 2, (1 + level) / 2)
            low[todo], high[todo] = part(values[todo], tails, axis=-1)
    return Interval(low, high)


@numba.njit(cache=True, nogil=True)
def _replicates(x, y, mask, blocks, block_days, offset):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Sums of every replicate, shape (series, replicates, 8), in the order of Statistics."""
    n_series, n_days = x.shape
    n_replicates, n_blocks = blocks.shape
    result = np.zeros((n_series, n_replicates, _N_SUMS))
    running = np.zeros((n_days + 1, _N_SUMS))
    block = np.zeros((max(n_days - block_days, 0) + 1, _N_SUMS))
    for s in range(n_series):
        for t in range(n_days):
            for k in range(_N_SUMS):
                running[t + 1, k] = running[t, k]
            if mask[s, t]:
                a, b = x[s, t] - offset, y[s, t] - offset
                running[t + 1, 0] += 1.0
                running[t + 1, 1] += a
                running[t + 1, 2] += b
                running[t + 1, 3] += a * a
                running[t + 1, 4] += b * b
                running[t + 1, 5] += a * b
                running[t + 1, 6] += a - b
                running[t + 1, 7] += (a - b) * (a - b)
        if n_blocks == 0:
            continue
        for t in range(len(block)):
            for k in range(_N_SUMS):
                block[t, k] = running[t + block_days, k] - running[t, k]
        for r in range(n_replicates):
            n = sx = sy = xx = yy = xy = d = dd = 0.0
            for i in range(n_blocks):
                part = block[blocks[r, i]]
                n += part[0]
                sx += part[1]
                sy += part[2]
                xx += part[3]
                yy += part[4]
                xy += part[5]
                d += part[6]
                dd += part[7]
            result[s, r] = (n, sx, sy, xx, yy, xy, d, dd)
    return result
