"""Daily means of the steps of a product, one granule in memory at a time."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from math import ceil

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepprofile.products.base import (
    DailyFields,
    Field,
    Granule,
    GranuleError,
    MissingVariableError,
    Reader,
    SetAside,
)

_DAY = np.timedelta64(86400, "s")


class DailyMeans:
    """Turns the steps that a reader gives into daily means on a window of the 9 km grid.

    A day stays open, as sums on the product's own grid, until no granule is left that begins on
    it or before it.

    Args:
        fields: the fields that the reader gives, in order.
        required: number of valid steps that a daily mean needs.
        first_day: first day, UTC.
        n_days: number of days.
        shape: rows and columns of the window.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        required: int,
        first_day: date,
        n_days: int,
        shape: tuple[int, int],
    ) -> None:
        self._fields = fields
        self._required = required
        self._first_day = first_day
        self._start = np.datetime64(first_day, "s")
        self._stop = self._start + n_days * _DAY
        self._outside = np.zeros(len(fields), dtype=np.int64)
        self._open: dict[int, _Sums] = {}
        self._seen: set[int] = set()
        self._result = DailyFields(
            np.full((n_days, len(fields), *shape), np.nan, dtype=np.float32),
            np.zeros((n_days, *shape), dtype=np.uint8),
        )

    def read(self, reader: Reader, granules: Sequence[Granule]) -> DailyFields:
        """Daily means of all steps in the granules; where two hold one step, of the first's.

        Raises:
            MissingVariableError: if every granule lacks a variable that was asked for.
        """
        wanted = [g for g in granules if g.last >= self._start and g.start < self._stop]
        missing: list[MissingVariableError] = []
        for granule, next_start in zip(wanted, self._next_starts(wanted), strict=True):
            try:
                self._add(reader, granule)
            except GranuleError as error:
                self._result.set_aside.append(SetAside(error.url, error.reason))
                if isinstance(error, MissingVariableError):
                    missing.append(error)
            self._close_before(next_start, reader)
        if missing and len(missing) == len(wanted):
            raise missing[0]
        return self._report()

    def _next_starts(self, granules: Sequence[Granule]) -> Iterator[np.datetime64]:
        """For each granule the earliest start among those after it."""
        starts = np.array([g.start for g in granules] + [self._stop], dtype="datetime64[s]")
        return iter(np.minimum.accumulate(starts[::-1])[::-1][1:])

    def _add(self, reader: Reader, granule: Granule) -> None:
        repeated = 0
        for time, values in reader.steps(granule, self._start, self._stop):
            second = int((time - self._start) // np.timedelta64(1, "s"))
            if second in self._seen:
                repeated += 1
                continue
            self._seen.add(second)
            day = second // 86400
            if day not in self._open:
                self._open[day] = _Sums(self._fields, values.shape, self._outside)
            self._open[day].add(values)
        if repeated:
            reason = f"{repeated} of its steps were taken from a granule read before it"
            self._result.set_aside.append(SetAside(granule.url, reason))

    def _close_before(self, time: np.datetime64, reader: Reader) -> None:
        for day in [d for d in self._open if self._start + (d + 1) * _DAY <= time]:
            mean, n_steps = self._open.pop(day).finish(self._required)
            self._result.values[day], self._result.n_steps[day] = reader.to_grid(
                mean, n_steps, self._required
            )

    def _report(self) -> DailyFields:
        days = np.array([second // 86400 for second in self._seen], dtype=np.int64)
        found = np.bincount(days, minlength=len(self._result.values))
        self._result.short_days = [
            (self._first_day + timedelta(days=day), int(n))
            for day, n in enumerate(found)
            if n < self._required
        ]
        self._result.out_of_range = {
            f.name: int(n) for f, n in zip(self._fields, self._outside, strict=True)
        }
        return self._result


def required_steps(min_fraction: float, steps_per_day: int) -> int:
    """Number of steps that make up ``min_fraction`` of a day, rounded up, at least 1.

    Raises:
        ValueError: if ``min_fraction`` is not between 0 and 1.
    """
    if not 0.0 <= min_fraction <= 1.0:
        raise ValueError(f"min_fraction is {min_fraction}: expected 0 to 1")
    return max(1, ceil(min_fraction * steps_per_day - 1e-9))


class _Sums:
    """Sums and numbers of valid steps of one day, in float64."""

    def __init__(
        self, fields: Sequence[Field], shape: tuple[int, ...], outside: NDArray[np.int64]
    ) -> None:
        self._limits = np.array(
            [(f.scale, f.valid_min, f.valid_max) for f in fields], dtype=np.float32
        )
        self._outside = outside
        self._total = np.zeros(shape, dtype=np.float64)
        self._count = np.zeros(shape, dtype=np.uint8)
        self._complete = np.zeros(shape[1:], dtype=np.uint8)

    def add(self, values: NDArray[np.float32]) -> None:
        """Add one step; values outside the valid range are left out and counted."""
        _accumulate(values, self._limits, self._total, self._count, self._complete, self._outside)

    def finish(self, required: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Means, NaN with fewer than ``required`` steps, and the number of complete steps."""
        mean = self._total / np.maximum(self._count, 1)
        mean[self._count < required] = np.nan
        return mean.astype(np.float32), self._complete


@njit(cache=True, nogil=True)
def _accumulate(values, limits, total, count, complete, outside):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    fields, n_rows, n_columns = values.shape
    valid = np.ones((n_rows, n_columns), np.uint8)
    for field in range(fields):
        scale, low, high = limits[field]
        for r in range(n_rows):
            for c in range(n_columns):
                value = values[field, r, c] * scale
                if low <= value <= high:
                    total[field, r, c] += value
                    count[field, r, c] += 1
                else:
                    valid[r, c] = 0
                    if not np.isnan(value):
                        outside[field] += 1
    complete += valid
