"""Climatology of a reference: what the season alone would have predicted, a baseline."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.estimates.base import Estimate, Series
from deepprofile.evaluation.estimates.own_series import (
    cell_means,
    distinct_cells,
    series_at,
    series_of_cells,
)

MIN_YEARS = 3
"""Years with a value on a day of the year from which it has a climatology, its own too."""
CLIMATOLOGY = "climatology"


@dataclass(frozen=True, eq=False)
class Climatology(Estimate):
    """Mean over the other years of the same day of the year, of a reference's own series.

    It knows what no model is told, the place's own mean and season, and nothing of the weather of
    the year: an estimate that does not beat it says nothing about that year.

    Attributes:
        reference: see :mod:`deepprofile.evaluation.reference.series`.
        min_years: years with a value that a day of the year needs, the day's own one included.
    """

    yields: ClassVar[bool] = True

    reference: xr.Dataset
    min_years: int = MIN_YEARS

    @classmethod
    def of(
        cls, reference: xr.Dataset, min_years: int = MIN_YEARS, name: str = CLIMATOLOGY
    ) -> "Climatology":
        """The climatology of every series of a reference, on its days."""
        row, column = distinct_cells(reference)
        return cls(name, row, column, reference["time"].to_numpy(), reference, min_years)

    @classmethod
    def possible(cls, reference: xr.Dataset, min_years: int = MIN_YEARS) -> bool:
        """Whether a reference's days hold some day of the calendar in so many years."""
        dates = pd.DatetimeIndex(reference["time"].to_numpy())
        _, years = np.unique(_calendar_day(dates), return_counts=True)
        return bool(years.max(initial=0) >= min_years)

    @property
    def absence(self) -> str:
        """See :attr:`Estimate.absence`."""
        return f"no day of the calendar has a value in {self.min_years} years"

    def covers(self, top: float, bottom: float) -> bool:
        """Whether the reference has a series of these bounds."""
        return bool(series_at(self.reference, top, bottom).size)

    def values(self, cells: NDArray[np.int64], top: float, bottom: float) -> Series:
        """See :meth:`Estimate.values`; the mean where a cell has two series of these bounds."""
        if not self.covers(top, bottom):
            raise ValueError(
                f"estimate {self.name!r} says nothing about {top} to {bottom} m: the reference "
                "has no series of these bounds"
            )
        wanted, at = series_of_cells(self.reference, self.keys[cells], top, bottom)
        series = self.reference["soil_moisture"].isel(series=wanted).to_numpy()
        means = other_years_mean(series, np.asarray(self.time), self.min_years)
        return cell_means(means, at, len(cells))

    def answered_by(self, top: float, bottom: float) -> str:
        """Always the same: the reference itself, in other years."""
        return "the reference in other years"


def other_years_mean(
    values: NDArray[np.floating], time: NDArray[np.datetime64], min_years: int = MIN_YEARS
) -> Series:
    """Mean of each calendar day (month and day) over all years but the value's own.

    Args:
        values: shape (..., time), NaN where missing, a value a day.
        time: the days, shape (time,).
        min_years: years with a value that the calendar day needs; the own year counts also where
            its value is missing.

    Returns:
        Same shape as ``values``; NaN where too few other years have a value.
    """
    dates = pd.DatetimeIndex(time)
    year, place = dates.year.to_numpy(), _calendar_day(dates)
    first = int(year.min()) if year.size else 0
    n_years = int(year.max(initial=first)) - first + 1
    flat = np.asarray(values, dtype=np.float64).reshape(-1, len(dates))
    table = np.full((len(flat), n_years, 12 * 31), np.nan)
    table[:, year - first, place] = flat
    known = np.isfinite(table)
    total, count = np.where(known, table, 0.0).sum(axis=1), known.sum(axis=1)
    own = np.where(np.isfinite(flat), flat, 0.0)
    others = count[:, place] - np.isfinite(flat)
    mean = (total[:, place] - own) / np.maximum(others, 1)
    # As exact as stored series are: equal means stay equal, in whatever order they were added.
    mean = mean.astype(np.float32).astype(np.float64)
    return np.where(others >= min_years - 1, mean, np.nan).reshape(np.shape(values))


def _calendar_day(dates: pd.DatetimeIndex) -> NDArray[np.int64]:
    """A number below 12 x 31 for month and day of the month."""
    return np.asarray(31 * (dates.month - 1) + dates.day - 1, dtype=np.int64)
