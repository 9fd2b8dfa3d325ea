"""Products in netCDF on a regular latitude-longitude grid.

The daily mean is taken on the product's own grid and then regridded: fewer operations, and the
number of steps of a target is that of its neighbours.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.products.base import Field, Granule, GranuleError, MissingVariableError
from deepprofile.products.files import check_units
from deepprofile.products.product import Product
from deepprofile.regrid import (
    AxisWeights,
    axis_weights,
    bilinear,
    contiguous,
    lowest_neighbour,
)

READ_BYTES = 128 * 2**20
"""Largest piece of all variables that is read at once, if a chunk in time is no larger."""
LARGEST_CHUNK = 8 * READ_BYTES
"""Largest piece that is read at once to decompress chunks that are long in time only once."""
_OFF_GRID = 0.01
"""Largest distance of a coordinate from its point of the grid, in steps of the grid."""
DIMENSIONS = ("time", "latitude", "longitude")


class LatLonProduct(Product):
    """A product on a regular latitude-longitude grid.

    A granule may hold the whole grid or any part of it, in either direction of latitude and any
    convention of longitude. The edge of a part is treated like a coast.
    """

    @abstractmethod
    def axes(self, dataset: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The product's whole grid, as it lies in ``dataset``.

        Returns:
            Latitudes and longitudes in degrees, ascending and evenly spaced, the longitudes all
            the way round.
        """

    @abstractmethod
    def open(self, granule: Granule) -> AbstractContextManager[xr.Dataset]:
        """Open a granule lazily, as variables over ``time``, ``latitude`` and ``longitude``.

        Missing values are NaN and ``time`` holds UTC times.

        Raises:
            GranuleError: if the file is damaged or lacks an axis.
        """

    def load(self, window: xr.DataArray) -> NDArray[np.floating]:
        """Values of a piece of a variable, shape (steps, latitudes, longitudes)."""
        return window.transpose(*DIMENSIONS).to_numpy()

    def reader(self, rows: slice, columns: slice) -> "_Reader":
        """Reader on a window of the 9 km grid."""
        return _Reader(self, rows, columns)


@dataclass(frozen=True)
class _Axis:
    """One axis of the product's grid, and the part of it that a window of the 9 km grid needs."""

    name: str
    points: NDArray[np.float64]
    wraps: bool
    wanted: NDArray[np.int64]
    weights: AxisWeights

    @classmethod
    def make(
        cls, name: str, points: NDArray[np.float64], target: NDArray[np.float64], *, wraps: bool
    ) -> "_Axis":
        slices, weights = axis_weights(points, target, period=360.0 if wraps else None).window()
        positions = np.arange(points.size)
        wanted = np.concatenate([positions[:0], *(positions[s] for s in slices)])
        return cls(name, points, wraps, wanted, weights)

    def place(self, found: NDArray[np.float64], url: str) -> "_Placement":
        """Where a granule's own points lie in the part that is needed."""
        spacing = self.points[1] - self.points[0]
        exact = (found - self.points[0]) / spacing
        position = np.round(exact).astype(np.int64)
        off = np.abs(exact - position).max(initial=0.0)
        if self.wraps:
            position = position % self.points.size
        inside = (position >= 0) & (position < self.points.size)
        steps = np.diff(position) % self.points.size
        neighbours = (steps == 1).all() or (steps == self.points.size - 1).all()
        if not (found.size and inside.all() and neighbours and off < _OFF_GRID):
            raise GranuleError(
                url,
                f"it lies on another grid: its {found.size} values of {self.name} run from "
                f"{found[:1]} to {found[-1:]}; expected points {spacing:g} degrees apart from "
                f"{self.points[0]:g} to {self.points[-1]:g}",
            )
        index = np.full(self.points.size, -1, dtype=np.int64)
        index[position] = np.arange(position.size)
        held = np.flatnonzero(index[self.wanted] >= 0)
        if held.size == 0:
            needed = self.points[self.wanted]
            raise GranuleError(
                url,
                f"it holds {self.name} {found[0]:g} to {found[-1]:g}, nothing of what is wanted: "
                f"{needed[:1]} to {needed[-1:]}",
            )
        return _Placement.make(index[self.wanted[held]], held)


@dataclass(frozen=True)
class _Placement:
    """Slices of a granule's axis, laid end to end; the order to take them in; where they go."""

    slices: tuple[slice, ...]
    order: NDArray[np.int64]
    target: NDArray[np.int64]

    @classmethod
    def make(cls, index: NDArray[np.int64], target: NDArray[np.int64]) -> "_Placement":
        slices = contiguous(np.sort(index))
        read = np.concatenate([np.arange(s.start, s.stop) for s in slices])
        return cls(slices, np.searchsorted(read, index), target)


class _Reader:
    """Reads the part of each granule that a window of the 9 km grid needs."""

    def __init__(self, product: LatLonProduct, rows: slice, columns: slice) -> None:
        self._product = product
        self._target = grid.latitudes()[rows], grid.longitudes()[columns]
        self._axes: tuple[_Axis, _Axis] | None = None
        self._placements: dict[bytes, tuple[_Placement, _Placement]] = {}

    def steps(
        self, granule: Granule, start: np.datetime64, stop: np.datetime64
    ) -> Iterator[tuple[np.datetime64, NDArray[np.float32]]]:
        """Steps of a granule on the part of the product's grid that is needed."""
        with self._product.open(granule) as dataset:
            variables = [_variable(dataset, f, granule.url) for f in self._product.fields]
            rows, columns = self._place(dataset, granule.url)
            times = dataset["time"].to_numpy().astype("datetime64[s]")
            wanted = np.flatnonzero((times >= start) & (times < stop))
            shape = self._shape
            chunk = max(_chunk_steps(variable) for variable in variables)
            for part in _pieces(wanted, 4 * len(variables) * shape[0] * shape[1], chunk):
                values = np.full(
                    (part.stop - part.start, len(variables), *shape), np.nan, dtype=np.float32
                )
                for i, variable in enumerate(variables):
                    piece = self._load(variable.isel(time=part), rows, columns)
                    values[:, i, rows.target[:, None], columns.target] = piece
                yield from zip(times[part], values, strict=True)

    def to_grid(
        self, mean: NDArray[np.float32], n_steps: NDArray[np.uint8], required: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Regrid; a target has ``required`` steps or more exactly where it has all values."""
        assert self._axes is not None, "a step has been read, so the grid is known"
        rows, columns = (axis.weights for axis in self._axes)
        enough = lowest_neighbour(n_steps * (n_steps >= required), rows, columns)
        any_at_all = lowest_neighbour(n_steps, rows, columns)
        return bilinear(mean, rows, columns), np.where(enough > 0, enough, any_at_all)

    @property
    def _shape(self) -> tuple[int, int]:
        assert self._axes is not None
        latitude, longitude = self._axes
        return latitude.wanted.size, longitude.wanted.size

    def _place(self, dataset: xr.Dataset, url: str) -> tuple[_Placement, _Placement]:
        """Where a granule lies; worked out once for all granules with the same coordinates.

        The first granule that lies on the product's grid says where exactly that grid lies.
        """
        for name in ("latitude", "longitude"):
            if name not in dataset:
                raise GranuleError(url, f"there is no coordinate {name}")
        latitude, longitude = (
            dataset[name].to_numpy().astype(np.float64) for name in ("latitude", "longitude")
        )
        key = latitude.tobytes() + longitude.tobytes()
        if key not in self._placements:
            rows, columns = self._axes or self._make_axes(dataset)
            self._placements[key] = rows.place(latitude, url), columns.place(longitude, url)
            self._axes = rows, columns
        return self._placements[key]

    def _make_axes(self, dataset: xr.Dataset) -> tuple[_Axis, _Axis]:
        latitudes, longitudes = self._product.axes(dataset)
        return (
            _Axis.make("latitude", latitudes, self._target[0], wraps=False),
            _Axis.make("longitude", longitudes, self._target[1], wraps=True),
        )

    def _load(
        self, variable: xr.DataArray, rows: _Placement, columns: _Placement
    ) -> NDArray[np.floating]:
        bands = [
            [
                self._product.load(variable.isel(latitude=latitudes, longitude=longitudes))
                for longitudes in columns.slices
            ]
            for latitudes in rows.slices
        ]
        return np.block(bands)[:, rows.order[:, None], columns.order]


def _variable(dataset: xr.Dataset, field: Field, url: str) -> xr.DataArray:
    if field.source not in dataset:
        found = ", ".join(map(str, dataset.data_vars))
        raise MissingVariableError(url, f"there is no variable {field.source}; it has {found}")
    variable = dataset[field.source]
    check_units(url, field.source, variable.attrs.get("units"), field.file_units or field.units)
    if not set(DIMENSIONS) <= set(variable.dims):
        raise GranuleError(
            url,
            f"variable {field.source} has dimensions {variable.dims}; expected {DIMENSIONS}",
        )
    return variable


def _chunk_steps(variable: xr.DataArray) -> int:
    """Steps in a chunk of the file; 1 where it has no chunks or does not say."""
    sizes = variable.encoding.get("chunksizes") or variable.encoding.get("preferred_chunks")
    if isinstance(sizes, dict):
        return int(sizes.get("time") or sizes.get("valid_time") or 1)
    # A dimension of size 1 may have been taken away since; time comes first in all products.
    return int(sizes[0]) if sizes else 1


def _pieces(steps: NDArray[np.int64], step_bytes: int, chunk: int = 1) -> Iterator[slice]:
    """Consecutive slices over the wanted steps, that cut no chunk of ``chunk`` steps in two.

    Each is of at most READ_BYTES, or of one chunk where that is at most LARGEST_CHUNK: a chunk
    is decompressed whole for every slice that needs some of it.
    """
    if not steps.size:
        return
    size, first, stop = max(1, READ_BYTES // step_bytes), int(steps.min()), int(steps.max()) + 1
    if size >= chunk:
        size -= size % chunk
    elif chunk * step_bytes <= LARGEST_CHUNK:
        size = chunk
    while first < stop:
        last = min((first // size + 1) * size, stop)
        yield slice(first, last)
        first = last
