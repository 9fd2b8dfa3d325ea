"""Confidence of metrics by a moving-block bootstrap, of one estimate and of two compared.

Soil moisture of one day is nearly that of the day before, so days can't be drawn one by one: a
replicate is put together from blocks of consecutive calendar days, gaps included (Künsch 1989,
doi:10.1214/aos/1176347265). Metrics follow from sums over days (`metrics.Statistics`), so a block
is eight numbers. Series of the same days share the blocks: metrics of two estimates come from the
same replicates, and their difference has an interval of its own (a paired comparison).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepprofile.evaluation.skill import kernels
from deepprofile.evaluation.skill.metrics import OFFSET, Metrics, Statistics, finish, flat_series

Array = NDArray[np.float64]
BLOCK_DAYS = 60
"""Length of a block: about twice the memory of soil moisture in the root zone."""
MIN_BLOCKS = 5
"""Blocks that a series must span, from its first to its last day, for an interval."""
REPLICATES = 500
LEVEL = 0.95
KNOWN_SHARE = 0.9
"""Share of the replicates that must have a metric for its interval."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval; NaN where there is none.

    Attributes:
        low: lower end, shape (...).
        high: upper end, same shape.
    """

    low: Array
    high: Array


def draw(
    n_days: int, replicates: int = REPLICATES, block_days: int = BLOCK_DAYS, seed: int = 0
) -> Array:
    """Random numbers that say where the blocks of every replicate begin.

    Args:
        n_days: calendar days of the longest series.
        replicates: number of replicates.
        block_days: length of a block.
        seed: of the draw.

    Returns:
        Uniform numbers of shape (blocks, replicates). More days add rows and change none, so the
        replicates of a series don't depend on the calendar on which it is laid.
    """
    return np.random.default_rng(seed).random((-(-n_days // block_days), replicates))


def replicate_metrics(
    estimate: NDArray[np.floating],
    reference: NDArray[np.floating],
    mask: NDArray[np.bool_],
    draws: Array,
    block_days: int = BLOCK_DAYS,
    min_days: int = 2,
) -> Metrics:
    """Metrics of every replicate of every series.

    A replicate is as long as the series from its first to its last common day, rounded up to whole
    blocks, and every block lies inside. There is none of a series that spans fewer than
    :data:`MIN_BLOCKS` blocks.

    Args:
        estimate: shape (..., time), a value a calendar day, m³ m⁻³.
        reference: shape broadcastable to that of ``estimate``.
        mask: True where a day counts, broadcastable too.
        draws: from `draw` for this many days or more.
        block_days: length of a block.
        min_days: days that a replicate must have for a metric.

    Returns:
        Metrics of shape (..., replicates).

    Raises:
        ValueError: if the numbers were drawn for a shorter series.
    """
    lead, x, y, mask = flat_series(estimate, reference, mask)
    if len(draws) * block_days < x.shape[1]:
        raise ValueError(
            f"{len(draws)} blocks of {block_days} days were drawn, but the series has "
            f"{x.shape[1]} days: draw for this series"
        )
    sums = kernels.replicate_sums(x, y, mask, draws, block_days, MIN_BLOCKS, OFFSET)
    return finish(Statistics.of(sums.reshape(*lead, draws.shape[1], kernels.N_SUMS)), min_days)


def span_days(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Days from the first to the last that count, shape (...) from (..., time)."""
    n_days = mask.shape[-1]
    span = n_days - np.argmax(mask, axis=-1) - np.argmax(mask[..., ::-1], axis=-1)
    return np.asarray(np.where(mask.any(axis=-1), span, 0))


def interval(values: NDArray[np.floating], level: float = LEVEL) -> Interval:
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
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)  # NaN comes last
    known = np.count_nonzero(~np.isnan(ordered), axis=-1)
    enough = (known >= KNOWN_SHARE * ordered.shape[-1]) & (known > 0)
    ends = (np.full(enough.shape, np.nan), np.full(enough.shape, np.nan))
    for end, tail in zip(ends, ((1 - level) / 2, (1 + level) / 2), strict=True):
        end[enough] = _quantile(ordered[enough], known[enough], tail)
    return Interval(*ends)


def _quantile(ordered: Array, known: NDArray[np.int64], share: float) -> Array:
    """Linear interpolation between the two values about a share of the ``known`` first ones."""
    place = share * (known - 1)
    below = np.floor(place).astype(np.int64)
    around = np.stack([below, np.minimum(below + 1, known - 1)], axis=-1)
    low, high = np.moveaxis(np.take_along_axis(ordered, around, axis=-1), -1, 0)
    return np.asarray(low + (high - low) * (place - below))
