"""The nearest other cell of a reference as the estimate of a cell: what a station next door tells.

A cell never takes part in its own estimate, so this is what interpolation between stations could
do at best without any model.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from deepprofile import grid
from deepprofile.evaluation.estimates.base import Estimate, Series, cell_keys
from deepprofile.evaluation.estimates.own_series import distinct_cells, own_values, series_at
from deepprofile.evaluation.reference.depths import compared_text

EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth (IUGG)."""
NEIGHBOUR = "neighbour"
_CANDIDATES = 6
"""Cells looked at for each: itself, and more than can lie at one distance on the grid."""
_TIE_DIGITS = 6
"""Digits of a distance in kilometres; equal ones are told apart by row and column."""
Cells = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NeighbourEstimate(Estimate):
    """Of every cell the series of the same bounds in the nearest other cell that has one.

    Attributes:
        reference: see :mod:`deepprofile.evaluation.reference.series`; the whole of it, not some of
            its cells, since each needs the others.
        max_distance_km: a neighbour farther away counts as none; no limit where None.
    """

    reference: xr.Dataset
    max_distance_km: float | None = None

    @classmethod
    def of(
        cls, reference: xr.Dataset, max_distance_km: float | None = None, name: str = NEIGHBOUR
    ) -> "NeighbourEstimate":
        """The neighbours of every cell of a reference, on its days."""
        row, column = distinct_cells(reference)
        time = reference["time"].to_numpy()
        return cls(name, row, column, time, reference, max_distance_km)

    @property
    def absence(self) -> str:
        """See :attr:`Estimate.absence`."""
        near = "" if self.max_distance_km is None else f" within {self.max_distance_km:g} km"
        return f"no other cell{near} has this depth, or the nearest has none of the days"

    def covers(self, top: float, bottom: float) -> bool:
        """Whether any cell has a neighbour with a series of these bounds."""
        return bool((self.neighbours(np.arange(len(self.row)), top, bottom)[0] >= 0).any())

    def values(self, cells: Cells, top: float, bottom: float) -> Series:
        """See :meth:`Estimate.values`."""
        keys, _ = self.neighbours(cells, top, bottom)
        if not (keys >= 0).any() and not self.covers(top, bottom):
            raise ValueError(
                f"estimate {self.name!r} says nothing about {top} to {bottom} m: no cell of the "
                "reference has a neighbour with a series of these bounds"
            )
        found, at = np.unique(keys[keys >= 0], return_inverse=True)
        values = np.full((len(cells), len(self.time)), np.nan)
        values[keys >= 0] = own_values(self.reference, found, top, bottom)[at]
        return values

    def answered_by(self, top: float, bottom: float) -> str:
        """What is compared of the other cell."""
        return f"nearest other cell, {compared_text(top, bottom)}"

    def neighbours(
        self, cells: Cells, top: float, bottom: float
    ) -> tuple[Cells, NDArray[np.float64]]:
        """The neighbours of some cells.

        Args:
            cells: indices into ``row`` and ``column``.
            top: metres.
            bottom: metres.

        Returns:
            Of each cell its neighbour, see `base.cell_keys`, and the distance between the centres
            on the sphere in kilometres. Of cells at the same distance the northernmost, then the
            westernmost. -1 and NaN where there is none.
        """
        row, column = distinct_cells(self.reference, series_at(self.reference, top, bottom))
        keys = np.full(len(cells), -1, dtype=np.int64)
        distances = np.full(len(cells), np.nan)
        if not row.size:
            return keys, distances
        sources = cell_keys(row, column)
        wanted = _on_sphere(self.row[cells], self.column[cells])
        n = min(_CANDIDATES, row.size)
        chord, nearest = KDTree(_on_sphere(row, column)).query(wanted, k=np.arange(1, n + 1))
        distance = (2 * EARTH_RADIUS_KM * np.arcsin(chord / 2)).round(_TIE_DIGITS)
        limit = np.inf if self.max_distance_km is None else self.max_distance_km
        other = (sources[nearest] != self.keys[cells][:, None]) & (distance <= limit)
        distance = np.where(other, distance, np.inf)
        # The sources are sorted by row and column, so the first of equals has the least position.
        first = np.lexsort((nearest, distance), axis=1)[:, :1]
        best = np.take_along_axis(distance, first, axis=1)[:, 0]
        there = np.isfinite(best)
        keys[there] = sources[np.take_along_axis(nearest, first, axis=1)[there, 0]]
        distances[there] = best[there]
        return keys, distances


def _on_sphere(row: ArrayLike, column: ArrayLike) -> NDArray[np.float64]:
    """Centres of cells on the unit sphere, shape (cells, 3)."""
    latitude = np.radians(grid.latitudes()[np.asarray(row)])
    longitude = np.radians(grid.longitudes()[np.asarray(column)])
    return np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ],
        axis=1,
    )
