"""From the readings of one sensor to daily means."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

VALID_MIN, VALID_MAX = 0.0, 1.0
"""Range of soil moisture in m³ m⁻³ outside which a reading is never used, whatever its flag."""
GOOD_FLAGS = ("G",)
MIN_FRACTION = 0.75
"""Share of a sensor's usual number of readings that makes a day."""
Days = NDArray[np.datetime64]


class Daily(NamedTuple):
    """Daily means of one sensor.

    Attributes:
        days: the days (UTC) from the first to the last reading, shape (time,).
        means: m³ m⁻³, NaN for a day with too few good readings, shape (time,).
        usual_readings: readings of a usual day, of any flag.
        n_readings: readings in all, each time counted once.
        n_good: readings whose flags are all good and whose value is possible.
        n_repeated: readings left out that repeat a time with the same value.
        n_contradicting: readings left out that repeat a time with another value.
    """

    days: Days
    means: NDArray[np.float32]
    usual_readings: int
    n_readings: int
    n_good: int
    n_repeated: int
    n_contradicting: int

    @property
    def remarks(self) -> list[str]:
        """What was left out, for a person."""
        found = []
        if self.n_contradicting:
            found.append(
                f"readings that repeat a time with another value: {self.n_contradicting}; the "
                "first of each time is used"
            )
        if self.n_repeated:
            found.append(f"readings that repeat a time and its value: {self.n_repeated}")
        return found


def to_daily(
    time: NDArray[np.datetime64],
    values: NDArray[np.float64],
    flags: pd.Series | None,
    good_flags: Collection[str],
    min_fraction: float,
) -> Daily | str:
    """Daily means of the readings of a sensor, or why there are none.

    Args:
        time: times of the readings (UTC), any order, NaT where there is none, shape (readings,).
        values: readings in m³ m⁻³, NaN where missing, shape (readings,).
        flags: quality flags in the same order, None where the source has none: every possible
            reading is good then.
        good_flags: flags of good readings.
        min_fraction: see `daily_means`.
    """
    keep, n_repeated, n_contradicting = first_of_each_time(time, values)
    time, values = time[keep], values[keep]
    good = (values >= VALID_MIN) & (values <= VALID_MAX)
    if flags is not None:
        flags = flags[keep]
        good &= good_readings(flags, good_flags)
    if not good.any():
        return _nothing_good(flags, values, good_flags)
    days, means, usual = daily_means(time, values, good, min_fraction)
    n_good = int(good.sum())
    return Daily(days, means, usual, values.size, n_good, n_repeated, n_contradicting)


def daily_means(
    time: NDArray[np.datetime64],
    values: NDArray[np.floating],
    good: NDArray[np.bool_],
    min_fraction: float = MIN_FRACTION,
) -> tuple[Days, NDArray[np.float32], int]:
    """Means of the good readings of each UTC day.

    Args:
        time: times of all readings (UTC), none twice, any order, shape (readings,), at least one.
        values: readings in m³ m⁻³.
        good: True where a reading may be used.
        min_fraction: share of the usual number of readings that makes a day.

    Returns:
        The days from the first to the last reading, the means (NaN for a day with too few) and
        the usual number of readings: one day divided by the median interval between readings.
    """
    day = time.astype("datetime64[D]").astype(np.int64)
    first = int(day.min())
    position = day - first
    n_days = int(position.max()) + 1
    usual = _usual_readings(time)
    count = np.bincount(position[good], minlength=n_days)
    total = np.bincount(position[good], weights=values[good], minlength=n_days)
    enough = count >= max(min_fraction * usual, 1)
    means = np.full(n_days, np.nan, dtype=np.float32)
    means[enough] = total[enough] / count[enough]
    days = (first + np.arange(n_days)).astype("datetime64[D]")
    return days, means, usual


def good_readings(flags: pd.Series, good: Collection[str]) -> NDArray[np.bool_]:
    """True where every flag of a reading ("D05,D04" has two) is one of ``good``."""
    codes, found = pd.factorize(flags.astype(str))
    accepted = [all(flag.strip() in good for flag in text.split(",")) for text in found]
    return np.array(accepted, dtype=bool)[codes]


def first_of_each_time(
    time: NDArray[np.datetime64], values: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], int, int]:
    """Which readings are the first of their time.

    Returns:
        True for the first reading of each time (False without a time), the number of later
        readings with the same value as the first, and of those with another one.
    """
    keep = ~np.isnat(time)
    known = np.flatnonzero(keep)
    order = known[np.argsort(time[known], kind="stable")]
    later = np.concatenate(([False], time[order[1:]] == time[order[:-1]]))
    if not later.any():
        return keep, 0, 0
    keep[order[later]] = False
    firsts = order[~later][np.cumsum(~later) - 1]
    same = (values[order] == values[firsts]) | (np.isnan(values[order]) & np.isnan(values[firsts]))
    return keep, int((later & same).sum()), int((later & ~same).sum())


def _usual_readings(time: NDArray[np.datetime64]) -> int:
    if time.size < 2:
        return 1
    seconds = np.sort(time).astype("datetime64[s]").astype(np.int64)
    return max(round(86400 / float(np.median(np.diff(seconds)))), 1)


def _nothing_good(
    flags: pd.Series | None, values: NDArray[np.float64], good_flags: Collection[str]
) -> str:
    if flags is None:
        known = values[np.isfinite(values)]
        between = f", between {known.min():g} and {known.max():g}" if known.size else ""
        return f"no possible reading (0 to 1 m³ m⁻³); found {known.size} values{between}"
    counts = ", ".join(f"{flag} {n}" for flag, n in flags.value_counts().head(5).items())
    return f"no possible reading with a good flag ({', '.join(sorted(good_flags))}); found {counts}"
