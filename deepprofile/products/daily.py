"""Daily means of the steps of a product, one granule in memory at a time."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from math import ceil
from threading import Event

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
    """Turns the steps that readers give into daily means on a window of the 9 km grid.

    A day stays open, as sums on the product's own grid, until no granule is left that begins on
    it or before it.

    Args:
        fields: the fields that the readers give, in order.
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
        self._result = DailyFields(
            np.full((n_days, len(fields), *shape), np.nan, dtype=np.float32),
            np.zeros((n_days, *shape), dtype=np.uint8),
            np.zeros(n_days, dtype=np.uint32),
        )

    def read(
        self, readers: Sequence[Callable[[], Reader]], granules: Sequence[Granule]
    ) -> DailyFields:
        """Daily means of all steps in the granules; where two hold one step, of the first's.

        Args:
            readers: make the readers, of which each takes whole days for itself, in a thread of
                its own. Where a granule reaches beyond a day, one reader takes all.
            granules: in the order of reading.

        Raises:
            MissingVariableError: if every granule lacks a variable that was asked for.
        """
        wanted = [g for g in granules if g.last >= self._start and g.start < self._stop]
        shares = self._shares(wanted, len(readers))
        streams = [self._stream(make) for make, _ in zip(readers, shares, strict=False)]
        if len(streams) > 1:
            failed = Event()
            with ThreadPoolExecutor(len(streams)) as pool:
                done = [
                    pool.submit(_run, stream, share, failed)
                    for stream, share in zip(streams, shares, strict=True)
                ]
            for future in done:
                future.result()
        else:
            for stream, share in zip(streams, shares, strict=True):
                stream.read(share, Event())
        return self._report(streams, len(wanted))

    def _stream(self, make: Callable[[], Reader]) -> "_Stream":
        return _Stream(
            make(), self._fields, self._required, (self._start, self._stop), self._result
        )

    def _shares(self, granules: Sequence[Granule], n: int) -> list[list[tuple[int, Granule]]]:
        """Granules with their numbers, those of a day together, dealt out to ``n`` streams."""
        numbered = list(enumerate(granules))
        days = [g.start.astype("datetime64[D]") for g in granules]
        if any(
            g.last.astype("datetime64[D]") != day for g, day in zip(granules, days, strict=True)
        ):
            return [numbered]
        position = {day: i for i, day in enumerate(sorted(set(days)))}
        shares: list[list[tuple[int, Granule]]] = [[] for _ in range(min(n, len(position)))]
        for item, day in zip(numbered, days, strict=True):
            shares[position[day] % len(shares)].append(item)
        return shares

    def _report(self, streams: Sequence["_Stream"], n_granules: int) -> DailyFields:
        missing = [error for stream in streams for error in stream.missing]
        if missing and len(missing) == n_granules:
            raise missing[0]
        aside = sorted((item for s in streams for item in s.set_aside), key=lambda item: item[0])
        self._result.set_aside = [item for _, item in aside]
        seconds = np.array([s for stream in streams for s in stream.seen], dtype=np.int64)
        days, bits = seconds // 86400, 1 << (seconds % 86400 // 3600)
        np.bitwise_or.at(self._result.hours, days, bits.astype(np.uint32))
        found = np.bincount(days, minlength=len(self._result.values))
        self._result.short_days = [
            (self._first_day + timedelta(days=day), int(n))
            for day, n in enumerate(found)
            if n < self._required
        ]
        outside = sum((s.outside for s in streams), np.zeros(len(self._fields), np.int64))
        self._result.out_of_range = {
            f.name: int(n) for f, n in zip(self._fields, outside, strict=True)
        }
        return self._result


class _Stream:
    """Reads granules one after another; its days are its own."""

    def __init__(
        self,
        reader: Reader,
        fields: Sequence[Field],
        required: int,
        period: tuple[np.datetime64, np.datetime64],
        result: DailyFields,
    ) -> None:
        self._reader = reader
        self._required = required
        self._start, self._stop = period
        self._result = result
        self._limits = np.array(
            [(f.scale, f.valid_min, f.valid_max) for f in fields], dtype=np.float32
        )
        self._open: dict[int, _Sums] = {}
        self._spare: list[_Sums] = []
        self.outside = np.zeros(len(fields), dtype=np.int64)
        self.seen: set[int] = set()
        self.set_aside: list[tuple[int, SetAside]] = []
        self.missing: list[MissingVariableError] = []

    def read(self, granules: Sequence[tuple[int, Granule]], failed: Event) -> None:
        """Read granules until one fails here, or ``failed`` tells of one elsewhere."""
        next_starts = self._next_starts([granule for _, granule in granules])
        for (number, granule), next_start in zip(granules, next_starts, strict=True):
            if failed.is_set():
                return
            try:
                self._add(number, granule)
            except GranuleError as error:
                self.set_aside.append((number, SetAside(error.url, error.reason)))
                if isinstance(error, MissingVariableError):
                    self.missing.append(error)
            self._close_before(next_start)

    def _next_starts(self, granules: Sequence[Granule]) -> Iterator[np.datetime64]:
        """For each granule the earliest start among those after it."""
        starts = np.array([g.start for g in granules] + [self._stop], dtype="datetime64[s]")
        return iter(np.minimum.accumulate(starts[::-1])[::-1][1:])

    def _add(self, number: int, granule: Granule) -> None:
        repeated = 0
        for time, values in self._reader.steps(granule, self._start, self._stop):
            second = int((time - self._start) // np.timedelta64(1, "s"))
            if second in self.seen:
                repeated += 1
                continue
            self.seen.add(second)
            day = second // 86400
            if day not in self._open:
                self._open[day] = self._spare.pop() if self._spare else _Sums(values.shape)
            self._open[day].add(values, self._limits, self.outside)
        if repeated:
            reason = f"{repeated} of its steps were taken from a granule read before it"
            self.set_aside.append((number, SetAside(granule.url, reason)))

    def _close_before(self, time: np.datetime64) -> None:
        for day in [d for d in self._open if self._start + (d + 1) * _DAY <= time]:
            sums = self._open.pop(day)
            mean, n_steps = sums.finish(self._required)
            self._result.values[day], self._result.n_steps[day] = self._reader.to_grid(
                mean, n_steps, self._required
            )
            self._spare.append(sums)


def _run(stream: _Stream, share: Sequence[tuple[int, Granule]], failed: Event) -> None:
    try:
        stream.read(share, failed)
    except BaseException:
        failed.set()
        raise


def required_steps(min_fraction: float, steps_per_day: int) -> int:
    """Number of steps that make up ``min_fraction`` of a day, rounded up, at least 1.

    Raises:
        ValueError: if ``min_fraction`` is not between 0 and 1.
    """
    if not 0.0 <= min_fraction <= 1.0:
        raise ValueError(f"min_fraction is {min_fraction}: expected 0 to 1")
    return max(1, ceil(min_fraction * steps_per_day - 1e-9))


class _Sums:
    """Sums and numbers of valid steps of one day, in float64; used again for the next."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._total = np.zeros(shape, dtype=np.float64)
        self._mean = np.empty(shape, dtype=np.float32)
        self._count = np.zeros(shape, dtype=np.uint8)
        self._complete = np.zeros(shape[1:], dtype=np.uint8)

    def add(
        self,
        values: NDArray[np.float32],
        limits: NDArray[np.float32],
        outside: NDArray[np.int64],
    ) -> None:
        """Add one step; values outside the valid range are left out and counted."""
        _accumulate(values, limits, self._total, self._count, self._complete, outside)

    def finish(self, required: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Means, NaN with fewer than ``required`` steps, and the number of complete steps.

        The sums are zero again afterwards; the next call overwrites the means.
        """
        _finish(self._total, self._count, required, self._mean)
        complete = self._complete.copy()
        self._complete.fill(0)
        return self._mean, complete


_RUN = 32
"""Cells that are passed over together where none is valid, as at sea."""


@njit(cache=True, nogil=True)
def _accumulate(values, limits, total, count, complete, outside):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    fields, n_rows, n_columns = values.shape
    valid = np.ones((n_rows, n_columns), np.uint8)
    for field in range(fields):
        scale, low, high = limits[field]
        wrong = np.int64(0)
        for r in range(n_rows):
            for first in range(0, n_columns, _RUN):
                last = min(first + _RUN, n_columns)
                n_valid = n_known = np.int64(0)
                for c in range(first, last):
                    value = values[field, r, c] * scale
                    n_valid += np.int64(low <= value) & np.int64(value <= high)
                    n_known += np.int64(value == value)
                wrong += n_known - n_valid
                if n_valid == 0:
                    valid[r, first:last] = 0
                    continue
                for c in range(first, last):
                    value = values[field, r, c] * scale
                    good = np.uint8(low <= value) & np.uint8(value <= high)
                    total[field, r, c] += value if good else np.float32(0.0)
                    count[field, r, c] += good
                    valid[r, c] &= good
        outside[field] += wrong
    complete += valid


@njit(cache=True, nogil=True)
def _finish(total, count, required, mean):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    flat_total, flat_count, flat_mean = total.ravel(), count.ravel(), mean.ravel()
    for first in range(0, flat_mean.size, _RUN):
        last = min(first + _RUN, flat_mean.size)
        known = 0
        for i in range(first, last):
            known |= flat_count[i]
        if known == 0:
            flat_mean[first:last] = np.nan
            continue
        for i in range(first, last):
            n = flat_count[i]
            flat_mean[i] = np.float32(flat_total[i] / n) if n >= required else np.nan
            flat_total[i] = 0.0
            flat_count[i] = 0
