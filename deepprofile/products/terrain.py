"""Terrain and position of every cell: the static inputs of the network.

Slope and aspect are taken at the elevation model's own resolution and then aggregated to the
9 km cells; from a coarse mean of the elevation they would come out far too gentle.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.products.base import GranuleError, MissingVariableError
from deepprofile.products.files import check_units, open_netcdf
from deepprofile.regrid import contiguous

FEATURES = ("elevation", "slope", "sin_aspect", "cos_aspect", "latitude", "longitude")
UNITS = ("m", "degree", "1", "1", "degrees_north", "degrees_east")
EARTH_RADIUS = 6371007.2
"""Radius in metres of the sphere with the surface of the WGS 84 ellipsoid."""
MAX_SPACING = 0.045
"""Widest spacing of an elevation model in degrees: about half a cell."""
BLOCK = 32
"""Rows and columns of cells for which pixels are read at once."""


def terrain_features(
    elevation_models: Sequence[str], rows: slice, columns: slice
) -> NDArray[np.float32]:
    """Terrain features of a window of the grid.

    Args:
        elevation_models: URLs of netCDF files with ``elevation(latitude, longitude)`` in metres,
            NaN where unknown, in order of preference: a cell takes the first that gives it a slope.
        rows: rows of the grid, ``start`` and ``stop`` given.
        columns: columns of the grid, ``start`` and ``stop`` given.

    Returns:
        float32, shape (6, rows, columns), in the order of ``FEATURES``: mean elevation in m, mean
        slope in degrees, sine and cosine of the mean aspect (the direction the ground faces,
        clockwise from north), latitude and longitude of the centre in degrees. The first four are
        NaN in cells without elevation; aspect is (0, 0) in cells that are flat or face no way.

    Raises:
        ValueError: if no elevation model is given.
        GranuleError: if an elevation model cannot be used.
    """
    if not elevation_models:
        raise ValueError("no elevation model given: expected the URL of at least one netCDF file")
    features = np.full((6, rows.stop - rows.start, columns.stop - columns.start), np.nan, "f4")
    features[4] = grid.latitudes()[rows, None]
    features[5] = grid.longitudes()[None, columns]
    for url in elevation_models:
        with open_netcdf(url) as dataset:
            elevation = _elevation(dataset, url)
            for block_rows, block_columns in _blocks(rows, columns):
                part = features[
                    :4,
                    block_rows.start - rows.start : block_rows.stop - rows.start,
                    block_columns.start - columns.start : block_columns.stop - columns.start,
                ]
                if np.isnan(part[0]).any():
                    found = _block_features(elevation, block_rows, block_columns)
                    part[...] = np.where(np.isnan(part[0]), found, part)
    return features


def gradient(
    elevation: NDArray[np.floating],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rise of the ground towards east and towards north, by central differences.

    Args:
        elevation: metres, shape (latitudes, longitudes).
        latitude: degrees north, in either direction.
        longitude: degrees east, ascending.

    Returns:
        Metres of rise per metre eastwards and northwards, NaN beside unknown pixels.
    """
    metres = np.radians(1.0) * EARTH_RADIUS
    north, per_degree = np.gradient(elevation.astype(np.float64), latitude, longitude)
    return per_degree / (metres * np.cos(np.radians(latitude))[:, None]), north / metres


def aggregate(
    elevation: NDArray[np.floating],
    east: NDArray[np.float64],
    north: NDArray[np.float64],
    cell: NDArray[np.int64],
    n_cells: int,
) -> NDArray[np.float64]:
    """Mean elevation, mean slope and circular mean of the aspect of the pixels of each cell.

    Each pixel's aspect counts by its gradient, so that flat ground, which faces nowhere, counts
    nothing: the mean aspect is the direction of the summed downhill vectors.

    Args:
        elevation: metres, shape (pixels,); a pixel counts where its gradient is known.
        east: rise towards east, metres per metre.
        north: rise towards north.
        cell: the cell each pixel lies in, 0 to ``n_cells`` - 1.
        n_cells: number of cells.

    Returns:
        Shape (4, cells): elevation in m, slope in degrees, sine and cosine of the aspect.
    """
    known = np.isfinite(elevation) & np.isfinite(east) & np.isfinite(north)
    cell, east, north = cell[known], east[known], north[known]

    def total(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.bincount(cell, weights=values, minlength=n_cells).astype(np.float64)

    count = np.bincount(cell, minlength=n_cells)
    pixels = np.where(count > 0, count, np.nan)
    slope = np.degrees(np.arctan(np.hypot(east, north)))
    face_east, face_north = -total(east), -total(north)
    length = np.hypot(face_east, face_north)
    length = np.where(length > 0.0, length, 1.0) * (pixels / pixels)
    return np.stack(
        [
            total(elevation[known]) / pixels,
            total(slope) / pixels,
            face_east / length,
            face_north / length,
        ]
    )


def _elevation(dataset: xr.Dataset, url: str) -> xr.DataArray:
    if "elevation" not in dataset:
        found = ", ".join(map(str, dataset.data_vars))
        raise MissingVariableError(url, f"there is no variable elevation; it has {found}")
    elevation = dataset["elevation"]
    if set(elevation.dims) != {"latitude", "longitude"}:
        raise GranuleError(
            url, f"elevation has dimensions {elevation.dims}; expected latitude, longitude"
        )
    check_units(url, "elevation", elevation.attrs.get("units"), "m")
    for name in ("latitude", "longitude"):
        spacing = float(np.abs(np.diff(elevation[name].to_numpy())).max(initial=0.0))
        if not 0.0 < spacing <= MAX_SPACING:
            raise GranuleError(
                url,
                f"its {name} has steps of up to {spacing} degrees; expected at most "
                f"{MAX_SPACING}: several pixels in each 9 km cell",
            )
    return elevation.transpose("latitude", "longitude")


def _blocks(rows: slice, columns: slice) -> Iterator[tuple[slice, slice]]:
    for row in range(rows.start, rows.stop, BLOCK):
        for column in range(columns.start, columns.stop, BLOCK):
            yield (
                slice(row, min(row + BLOCK, rows.stop)),
                slice(column, min(column + BLOCK, columns.stop)),
            )


def _block_features(elevation: xr.DataArray, rows: slice, columns: slice) -> NDArray[np.float64]:
    """The four terrain features of a block of cells, shape (4, rows, columns)."""
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    latitude = elevation["latitude"].to_numpy().astype(np.float64)
    longitude = elevation["longitude"].to_numpy().astype(np.float64)
    pixel_row = grid.cell_index(np.zeros_like(latitude), latitude)[0] - rows.start
    pixel_column = grid.cell_index(longitude, np.zeros_like(longitude))[1] - columns.start
    use_rows = _with_margin((pixel_row >= 0) & (pixel_row < shape[0]), wraps=False)
    use_columns = _with_margin((pixel_column >= 0) & (pixel_column < shape[1]), wraps=True)
    if use_rows.size < 2 or use_columns.size < 2:
        return np.full((4, *shape), np.nan)
    west = float(grid.longitudes()[columns.start]) - 1.0
    eastward = (longitude[use_columns] - west) % 360.0
    order = np.argsort(eastward)
    values = _read(elevation, use_rows, use_columns)[:, order]
    east, north = gradient(values, latitude[use_rows], eastward[order])
    cell_row = np.broadcast_to(pixel_row[use_rows, None], values.shape)
    cell_column = np.broadcast_to(pixel_column[use_columns][order][None], values.shape)
    inside = (cell_row >= 0) & (cell_row < shape[0]) & (cell_column >= 0) & (cell_column < shape[1])
    cell = (cell_row * shape[1] + cell_column)[inside]
    found = aggregate(values[inside], east[inside], north[inside], cell, shape[0] * shape[1])
    return found.reshape(4, *shape)


def _with_margin(inside: NDArray[np.bool_], *, wraps: bool) -> NDArray[np.int64]:
    """Positions of the pixels inside and of their direct neighbours."""
    wider = inside | np.roll(inside, 1) | np.roll(inside, -1)
    if not wraps:
        wider[0], wider[-1] = inside[:2].any(), inside[-2:].any()
    return np.flatnonzero(wider)


def _read(
    elevation: xr.DataArray, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.floating]:
    band = slice(int(rows[0]), int(rows[-1]) + 1)
    parts = [
        elevation.isel(latitude=band, longitude=part).to_numpy() for part in contiguous(columns)
    ]
    return np.concatenate(parts, axis=1)
