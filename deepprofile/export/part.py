"""The part of a cube that is exported: found, checked, and read piece by piece.

A piece is a row of tiles over the days of one block, so every shard is read once and memory does
not grow with the days asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import accumulate, pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import Transformer

from deepprofile import grid
from deepprofile.export.land import NOT_LAND, cells_without_land
from deepprofile.export.provenance import provenance
from deepprofile.export.request import Bounds, ExportError, Request
from deepprofile.profile import Layer
from deepprofile.store import head, open_cube, region_of
from deepprofile.store.kinds import NOT_PROCESSED
from deepprofile.store.template import KIND


@dataclass(frozen=True)
class Part:
    """The days and cells of a cube that are exported.

    Attributes:
        cube: the cube, cut to days, rows and columns; lazy, a chunk a shard.
        layers: the layers asked for.
        corner: row and column of its first cell in the global grid.
        meanings: what each value of the flag means.
        without_land: cells of tiles in which there is nothing to predict, shape (rows, columns).
        provenance: attributes that say where the values come from.
    """

    cube: xr.Dataset
    layers: tuple[Layer, ...]
    corner: tuple[int, int]
    meanings: Mapping[int, str]
    without_land: NDArray[np.bool_]
    provenance: Mapping[str, str]

    @property
    def days(self) -> list[date]:
        """The UTC days."""
        return _dates(self.cube)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.cube.sizes["y"], self.cube.sizes["x"]

    def spans(self, at_most: int | None = None) -> Iterator[slice]:
        """Days that are read together: those of one block, but not more than ``at_most``."""
        for block in _slices(self.cube.chunksizes["time"]):
            step = at_most or block.stop - block.start
            for start in range(block.start, block.stop, step):
                yield slice(start, min(start + step, block.stop))

    @property
    def n_pieces(self) -> int:
        """Number of pieces: spans of days times bands of rows."""
        return len(list(self.spans())) * len(self.bands())

    def bands(self) -> list[slice]:
        """Rows that are read together: those of one row of tiles."""
        return list(_slices(self.cube.chunksizes["y"]))

    def read(self, days: slice, rows: slice) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Layer means (days, layers, rows, x) in m³ m⁻³ and flags (days, rows, x).

        A flag that was never written is that of a cell without land in tiles without land; in
        others it says that a job failed or has not run.
        """
        piece = self.cube.isel(time=days, y=rows)
        means = piece.profile.layers([(layer.top, layer.bottom) for layer in self.layers])
        means = means.transpose("time", "layer", "y", "x")
        both = xr.Dataset({"means": means, "flag": piece["flag"]}).compute(scheduler="threads")
        return both["means"].values, self._flags(both["flag"], rows)

    def count_flags(self, on_piece: Callable[[], None]) -> NDArray[np.int64]:
        """How many cells have each value of the flag, shape (days, 256).

        Args:
            on_piece: called after each piece.
        """
        counts = np.zeros((self.cube.sizes["time"], 256), np.int64)
        for days in self.spans():
            for rows in self.bands():
                flag = self.cube["flag"].isel(time=days, y=rows).compute(scheduler="threads")
                found = self._flags(flag, rows)
                counts[days] += [np.bincount(day.ravel(), minlength=256) for day in found]
                on_piece()
        return counts

    def _flags(self, flag: xr.DataArray, rows: slice) -> NDArray[np.uint8]:
        not_land = next((n for n, name in self.meanings.items() if name == NOT_LAND), NOT_PROCESSED)
        never_scheduled = (flag.values == NOT_PROCESSED) & self.without_land[rows]
        return np.where(never_scheduled, np.uint8(not_land), flag.values)

    def named_counts(self, counts: NDArray[np.int64]) -> dict[str, int]:
        """Counts (256,) of the values of the flag by what they mean."""
        return {
            self.meanings.get(int(value), f"flag {value}"): int(counts[value])
            for value in np.flatnonzero(counts)
        }


def open_part(request: Request) -> Part:
    """Find what is asked for in the cube as it was published last.

    Raises:
        NotACubeError: if there is no cube.
        ExportError: if the cube holds no coefficients, or not these days or cells.
    """
    snapshot = head(request.url)
    cube = open_cube(request.url, snapshot=snapshot)
    if "coefficients" not in cube or "flag" not in cube:
        raise ExportError(
            f"{request.url}: holds a cube of kind {cube.attrs.get(KIND)}; expected one of "
            "coefficients, as the stage predict writes it"
        )
    days = _days_of(cube, request)
    rows, columns = _cells_of(cube, request)
    region = region_of(cube.attrs)
    return Part(
        cube.isel(time=days, y=rows, x=columns),
        request.layers,
        (region.rows.start + rows.start, region.columns.start + columns.start),
        _meanings(cube["flag"].attrs),
        cells_without_land(request.url, snapshot, region)[rows, columns],
        provenance(request.url, cube, snapshot),
    )


def _days_of(cube: xr.Dataset, request: Request) -> slice:
    held = _dates(cube)
    if not held or request.first < held[0] or request.last > held[-1]:
        extent = f"{held[0]} to {held[-1]}" if held else "no day"
        raise ExportError(
            f"{request.url}: holds {extent}; asked for {request.first} to {request.last}"
        )
    return slice(held.index(request.first), held.index(request.last) + 1)


def _cells_of(cube: xr.Dataset, request: Request) -> tuple[slice, slice]:
    """Rows and columns of the cells that the box touches, counted from the cube's corner."""
    if request.bounds is None:
        return slice(0, cube.sizes["y"]), slice(0, cube.sizes["x"])
    west, south, east, north = _projected(request.bounds)
    rows = _touched(cube["y_bounds"].values, south, north)
    columns = _touched(cube["x_bounds"].values, west, east)
    if not (rows.size and columns.size):
        latitude, longitude = cube["latitude"].values, cube["longitude"].values
        asked = "west {:g}, south {:g}, east {:g}, north {:g}".format(*request.bounds)
        raise ExportError(
            f"{request.url}: bounds {asked} touch no cell. The cube's region has cell centres from "
            f"west {longitude[0]:.2f}, south {latitude[-1]:.2f} to east {longitude[-1]:.2f}, "
            f"north {latitude[0]:.2f}."
        )
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _projected(bounds: Bounds) -> Bounds:
    to_projected = Transformer.from_crs(4326, grid.EPSG, always_xy=True)
    west, south = to_projected.transform(bounds[0], bounds[1])
    east, north = to_projected.transform(bounds[2], bounds[3])
    return west, south, east, north


def _touched(edges: NDArray[np.float64], low: float, high: float) -> NDArray[np.int64]:
    """Cells with ``edges`` (cells, 2) that an open interval touches."""
    return np.flatnonzero((edges.min(axis=1) < high) & (edges.max(axis=1) > low))


def _meanings(attributes: Mapping[str, object]) -> dict[int, str]:
    values = np.atleast_1d(attributes["flag_values"]).tolist()  # type: ignore[call-overload]
    named = dict(zip(values, str(attributes["flag_meanings"]).split(), strict=True))
    return {**named, NOT_PROCESSED: "not_processed"}


def _dates(cube: xr.Dataset) -> list[date]:
    days: list[date] = cube["time"].values.astype("datetime64[D]").tolist()
    return days


def _slices(sizes: Iterable[int]) -> Iterator[slice]:
    return (slice(*bounds) for bounds in pairwise(accumulate(sizes, initial=0)))
