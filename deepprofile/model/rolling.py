"""Series of land cells over days that roll on, gaps filled and counted on the way.

Forcing arrives as shards (days, variables, rows, columns) and is needed as series (cells,
variables, days). A shard goes straight into the series, a few cells at a time, so that what is
read and what is written lie in the cache together; gaps are filled before it leaves the cache.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from deepprofile.model.gaps import fill_days

CELLS_TOGETHER = 16
"""Cells that are turned together: one line of the cache holds them."""


class RollingSeries:
    """Series of some cells on consecutive days; new days come at the end, old ones go.

    A gap is filled as soon as the value after it has come: the result doesn't depend on how the
    days are cut into shards.

    Attributes:
        first: the first day that is held.
        stop: the day after the last that is held.
    """

    def __init__(
        self, cells: NDArray[np.intp], n_variables: int, capacity: int, first: int, max_gap: int
    ) -> None:
        """Room for days that begin with ``first``; none is held yet.

        Args:
            cells: (cells,) indices of the cells in the flattened rectangle of a shard.
            n_variables: variables of the forcing.
            capacity: days that are held at most.
            first: index of the first day.
            max_gap: gaps of at most so many days are filled by straight lines.
        """
        self.first = self.stop = first
        self._cells, self._max_gap = cells, max_gap
        self._series = np.empty((cells.size, n_variables, capacity), np.float32)
        self._n_missing, self._n_filled = np.zeros((2, cells.size, capacity), np.int16)

    def append(self, forcing: NDArray[np.float32]) -> None:
        """Take the days that follow the last one.

        Args:
            forcing: (days, variables, rows, columns) in raw units; infinite values are missing.

        Raises:
            ValueError: if there is no room for them, or the variables are not as many as expected.
        """
        n_days, n_variables = forcing.shape[:2]
        start, capacity = self.stop - self.first, self._series.shape[2]
        if n_variables != self._series.shape[1] or start + n_days > capacity:
            raise ValueError(
                f"forcing has {n_days} days and {n_variables} variables: expected "
                f"{self._series.shape[1]} variables and at most {capacity - start} days"
            )
        n_cells = math.prod(forcing.shape[2:])
        values = np.ascontiguousarray(forcing).reshape(n_days, n_variables, n_cells)
        _turn(
            values, self._cells, self._series, start, self._max_gap, self._n_missing, self._n_filled
        )
        self.stop += n_days

    def drop_before(self, day: int) -> None:
        """Forget the days before ``day`` and make room at the end."""
        shift, held = day - self.first, self.stop - self.first
        if shift <= 0:
            return
        for days in (self._series, self._n_missing[:, None], self._n_filled[:, None]):
            _move(days, shift, held)
        self._n_missing[:, held - shift :] = 0
        self._n_filled[:, held - shift :] = 0
        self.first = day

    def values(self, start: int, stop: int) -> NDArray[np.float32]:
        """Series (cells, variables, days) of some days that are held, not a copy."""
        return self._series[:, :, start - self.first : stop - self.first]

    def n_missing(self, start: int, stop: int) -> NDArray[np.int16]:
        """How many variables of the day are missing, (cells, days), not a copy."""
        return self._n_missing[:, start - self.first : stop - self.first]

    def n_filled(self, start: int, stop: int) -> NDArray[np.int16]:
        """How many variables of the day were filled, (cells, days), not a copy."""
        return self._n_filled[:, start - self.first : stop - self.first]


@numba.njit(nogil=True, cache=True)
def _turn(
    forcing: NDArray[np.float32],
    cells: NDArray[np.intp],
    series: NDArray[np.float32],
    start: int,
    max_gap: int,
    n_missing: NDArray[np.int16],
    n_filled: NDArray[np.int16],
) -> None:
    """Forcing (days, variables, all cells) into the series from day ``start`` on, gaps filled."""
    n_days, n_variables, _ = forcing.shape
    stop = start + n_days
    for variable in range(n_variables):
        for begin in range(0, cells.size, CELLS_TOGETHER):
            end = min(begin + CELLS_TOGETHER, cells.size)
            if not _turn_few(forcing, cells, series, start, variable, begin, end):
                for cell in range(begin, end):
                    line = series[cell, variable]
                    fill_days(line, start, stop, max_gap, n_missing[cell], n_filled[cell])


@numba.njit(nogil=True, cache=True)
def _turn_few(
    forcing: NDArray[np.float32],
    cells: NDArray[np.intp],
    series: NDArray[np.float32],
    start: int,
    variable: int,
    begin: int,
    end: int,
) -> bool:
    """Turn one variable of a few cells; whether they are complete, the day before included."""
    n_nan = 0
    for cell in range(begin, end):
        n_nan += start > 0 and np.isnan(series[cell, variable, start - 1])
    for day in range(len(forcing)):
        for cell in range(begin, end):
            value = forcing[day, variable, cells[cell]]
            if np.isinf(value):
                value = np.float32(np.nan)
            series[cell, variable, start + day] = value
            n_nan += np.isnan(value)
    return n_nan == 0


@numba.njit(nogil=True, cache=True)
def _move(days: NDArray[np.generic], shift: int, held: int) -> None:
    """Move what is held, (cells, variables, days), ``shift`` days to the front, in place."""
    for cell in range(days.shape[0]):
        for variable in range(days.shape[1]):
            line = days[cell, variable]
            for day in range(held - shift):
                line[day] = line[day + shift]
