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
from deepprofile.regrid import AxisWeights, axis_weights, bilinear, lowest_neighbour

READ_BYTES = 128 * 2**20
"""Largest piece of all variables that is read at once."""
DIMENSIONS = ("time", "latitude", "longitude")


class LatLonProduct(Product):
    """A product on a regular latitude-longitude grid.

    Attributes:
        spacing: distance of the grid points in degrees.
    """

    spacing: float

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
class _Source:
    """What is read of the source grid, and how it is regridded."""

    axes: bytes
    latitudes: tuple[slice, ...]
    longitudes: tuple[slice, ...]
    rows: AxisWeights
    columns: AxisWeights


class _Reader:
    """Reads the part of each granule that a window of the 9 km grid needs."""

    def __init__(self, product: LatLonProduct, rows: slice, columns: slice) -> None:
        self._product = product
        self._latitudes = grid.latitudes()[rows]
        self._longitudes = grid.longitudes()[columns]
        self._source: _Source | None = None

    def steps(
        self, granule: Granule, start: np.datetime64, stop: np.datetime64
    ) -> Iterator[tuple[np.datetime64, NDArray[np.float32]]]:
        """Steps of a granule on the part of the source grid that is needed."""
        with self._product.open(granule) as dataset:
            variables = [_variable(dataset, f, granule.url) for f in self._product.fields]
            source = self._find_source(dataset, granule.url)
            times = dataset["time"].to_numpy().astype("datetime64[s]")
            wanted = np.flatnonzero((times >= start) & (times < stop))
            for part in _pieces(wanted, _step_bytes(source) * len(variables)):
                values = np.stack([self._load(v, part, source) for v in variables], axis=1)
                yield from zip(times[part], values, strict=True)

    def to_grid(
        self, mean: NDArray[np.float32], n_steps: NDArray[np.uint8], required: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Regrid; a target has ``required`` steps or more exactly where it has a value."""
        assert self._source is not None
        rows, columns = self._source.rows, self._source.columns
        enough = lowest_neighbour(n_steps * (n_steps >= required), rows, columns)
        any_at_all = lowest_neighbour(n_steps, rows, columns)
        return bilinear(mean, rows, columns), np.where(enough > 0, enough, any_at_all)

    def _load(self, variable: xr.DataArray, steps: slice, source: _Source) -> NDArray[np.float32]:
        bands = [
            np.concatenate(
                [
                    self._product.load(
                        variable.isel(time=steps, latitude=latitudes, longitude=longitudes)
                    )
                    for longitudes in source.longitudes
                ],
                axis=2,
            )
            for latitudes in source.latitudes
        ]
        return np.concatenate(bands, axis=1).astype(np.float32, copy=False)

    def _find_source(self, dataset: xr.Dataset, url: str) -> _Source:
        """The part of the source grid; worked out once for all granules with the same axes."""
        latitude, longitude = _axis(dataset, "latitude", url), _axis(dataset, "longitude", url)
        axes = latitude.tobytes() + longitude.tobytes()
        if self._source is None:
            self._source = self._make_source(latitude, longitude, axes, url)
        if self._source.axes != axes:
            raise GranuleError(
                url,
                f"its grid, {_extent(latitude, longitude)}, is not that of the granules before it",
            )
        return self._source

    def _make_source(
        self, latitude: NDArray[np.float64], longitude: NDArray[np.float64], axes: bytes, url: str
    ) -> _Source:
        for axis in (latitude, longitude):
            if not _evenly_spaced(axis, self._product.spacing):
                raise GranuleError(
                    url,
                    f"it lies on another grid: {_extent(latitude, longitude)}; expected points "
                    f"{self._product.spacing} degrees apart",
                )
        latitudes, rows = axis_weights(latitude, self._latitudes).window()
        longitudes, columns = axis_weights(longitude, self._longitudes, period=360.0).window()
        if not (latitudes and longitudes):
            raise GranuleError(
                url,
                f"it covers {_extent(latitude, longitude)}, nothing of the latitudes "
                f"{self._latitudes[-1]:.2f} to {self._latitudes[0]:.2f} and longitudes "
                f"{self._longitudes[0]:.2f} to {self._longitudes[-1]:.2f} that are wanted",
            )
        return _Source(axes, latitudes, longitudes, rows, columns)


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


def _axis(dataset: xr.Dataset, name: str, url: str) -> NDArray[np.float64]:
    """A coordinate, rounded so that files in single and in double precision agree."""
    if name not in dataset:
        raise GranuleError(url, f"there is no coordinate {name}")
    return np.asarray(dataset[name].to_numpy(), dtype=np.float64).round(4)


def _evenly_spaced(axis: NDArray[np.float64], spacing: float) -> bool:
    steps = np.diff(axis)
    return axis.size > 1 and bool((np.abs(steps - np.copysign(spacing, steps[0])) < 1e-3).all())


def _extent(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> str:
    return (
        f"{latitude.size} latitudes from {latitude[0]} to {latitude[-1]} and "
        f"{longitude.size} longitudes from {longitude[0]} to {longitude[-1]}"
    )


def _step_bytes(source: _Source) -> int:
    latitudes, longitudes = (
        sum(int(s.stop - s.start) for s in axis) for axis in (source.latitudes, source.longitudes)
    )
    return 4 * latitudes * longitudes


def _pieces(steps: NDArray[np.int64], step_bytes: int) -> Iterator[slice]:
    """Consecutive slices over the wanted steps, each of at most READ_BYTES."""
    size = max(1, READ_BYTES // step_bytes)
    for first in range(int(steps.min(initial=0)), int(steps.max(initial=-1)) + 1, size):
        yield slice(first, min(first + size, int(steps.max()) + 1))
