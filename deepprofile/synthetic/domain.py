"""Cells, coast and relief of the demo Earth: the northern Aegean, coarsely drawn.

Row, column, longitude and latitude are those of the real 9 km grid. The coast is a polygon of
some forty corners, the relief a sum of hills and seeded noise.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from deepprofile import grid
from deepprofile.synthetic.config import EarthConfig
from deepprofile.synthetic.noise import generator, local_km

DEM_PER_DEGREE = 120
MARGIN = 1.0
"""Degrees by which the relief reaches beyond the window."""

# fmt: off
_SEA = np.array([
    (22.95, 38.00), (22.95, 39.20), (22.72, 39.75), (22.60, 40.00), (22.58, 40.30),
    (22.65, 40.46), (22.78, 40.55), (22.93, 40.63), (22.96, 40.50), (22.88, 40.36),
    (23.10, 40.27), (23.32, 40.22), (23.38, 40.05), (23.62, 39.92), (23.73, 39.95),
    (23.53, 40.08), (23.38, 40.24), (23.50, 40.29), (23.68, 40.20), (23.78, 40.08),
    (23.96, 39.94), (24.03, 40.05), (23.86, 40.20), (23.87, 40.33), (24.06, 40.26),
    (24.30, 40.11), (24.40, 40.15), (24.12, 40.34), (23.90, 40.42), (23.76, 40.58),
    (23.80, 40.74), (24.10, 40.71), (24.40, 40.90), (24.80, 40.94), (27.00, 40.85),
    (27.00, 38.00),
])
_HILLS = np.array([  # longitude, latitude, height (m), width (km)
    (22.35, 40.08, 2100, 14), (22.05, 40.30, 1400, 15), (21.95, 40.60, 1500, 14),
    (21.80, 40.92, 1900, 15), (22.75, 41.35, 1300, 13), (23.05, 41.38, 1400, 12),
    (23.45, 41.72, 2200, 18), (23.55, 41.25, 1500, 14), (24.10, 41.50, 1500, 25),
    (23.85, 41.20, 1400, 12), (24.10, 40.92, 1500, 10), (23.50, 40.48, 800, 13),
    (23.15, 40.58, 900, 8), (22.35, 41.10, 800, 14), (24.33, 40.17, 1200, 6),
    (22.20, 39.75, 900, 18), (21.60, 40.20, 1000, 20),
])
# fmt: on


@dataclass(frozen=True)
class Domain:
    """The window and its land cells.

    Attributes:
        rows: grid rows of the window, shape (rows,).
        columns: grid columns of the window, shape (columns,).
        land: land mask of the window, shape (rows, columns).
        row: window row of each land cell, shape (cells,).
        column: window column of each land cell.
        longitude: of each land cell, degrees east.
        latitude: of each land cell, degrees north.
        elevation: mean elevation of each land cell in metres.
        dem: ``elevation(latitude, longitude)`` and ``land`` at 1/120°.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    land: NDArray[np.bool_]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]
    elevation: NDArray[np.float64]
    dem: xr.Dataset

    @property
    def n_cells(self) -> int:
        """Number of land cells."""
        return len(self.row)

    @property
    def position(self) -> NDArray[np.float64]:
        """Cell centres in km, shape (cells, 2)."""
        return local_km(self.longitude, self.latitude)


def make_domain(config: EarthConfig) -> Domain:
    """Draw coast and relief and find the land cells.

    Raises:
        ValueError: if the window holds no land.
    """
    rows, columns = np.arange(*config.rows), np.arange(*config.columns)
    dem = _relief(config, grid.longitudes()[columns], grid.latitudes()[rows])
    land_share, elevation = _cell_means(dem, rows, columns)
    land = land_share > 0.5
    if not land.any():
        raise ValueError(f"window rows {config.rows}, columns {config.columns} holds no land")
    row, column = np.nonzero(land)
    return Domain(
        rows=rows,
        columns=columns,
        land=land,
        row=row,
        column=column,
        longitude=grid.longitudes()[columns[column]],
        latitude=grid.latitudes()[rows[row]],
        elevation=elevation[land],
        dem=dem,
    )


def land_share(
    dem: xr.Dataset, longitude: NDArray[np.float64], latitude: NDArray[np.float64], spacing: float
) -> NDArray[np.float64]:
    """Share of land in the boxes of a regular grid, shape (latitude, longitude).

    Args:
        dem: relief with ``land(latitude, longitude)``.
        longitude: box centres, degrees.
        latitude: box centres, degrees.
        spacing: side of a box, degrees.
    """
    table = np.zeros((dem.sizes["latitude"] + 1, dem.sizes["longitude"] + 1))
    table[1:, 1:] = dem["land"].values.cumsum(0).cumsum(1)
    south_first = dem["latitude"].values[::-1]
    low = len(south_first) - np.searchsorted(south_first, latitude - spacing / 2)
    high = len(south_first) - np.searchsorted(south_first, latitude + spacing / 2)
    west = np.searchsorted(dem["longitude"].values, longitude - spacing / 2)
    east = np.searchsorted(dem["longitude"].values, longitude + spacing / 2)
    total = table[np.ix_(low, east)] - table[np.ix_(high, east)]
    total -= table[np.ix_(low, west)] - table[np.ix_(high, west)]
    return np.asarray(total / np.outer(low - high, east - west))


def _relief(
    config: EarthConfig, longitude: NDArray[np.float64], latitude: NDArray[np.float64]
) -> xr.Dataset:
    """Elevation and land mask at 1/120° around the window; latitude descends."""
    west, east = longitude.min() - MARGIN, longitude.max() + MARGIN
    south, north = latitude.min() - MARGIN, latitude.max() + MARGIN
    step = 1.0 / DEM_PER_DEGREE
    lon = np.arange(round(west / step), round(east / step)) * step + step / 2
    lat = np.arange(round(north / step), round(south / step), -1) * step - step / 2
    sea = _inside(lon[None, :], lat[:, None], _SEA)
    coast_km = distance_transform_edt(~sea) * step * 111.2 * 0.87
    ramp = 1.0 - np.exp(-coast_km / 10.0)
    rough = gaussian_filter(generator(config.seed, "relief").standard_normal(sea.shape), 4.0)
    elevation = 8.0 + ramp * np.maximum(_hills(lon, lat) * (1.0 + 3.0 * rough) + 300.0 * rough, 0.0)
    return xr.Dataset(
        {
            "elevation": (
                ("latitude", "longitude"),
                np.where(sea, 0.0, elevation).round().astype(np.int16),
                {"units": "m", "standard_name": "surface_altitude", "long_name": "elevation"},
            ),
            "land": (("latitude", "longitude"), ~sea),
        },
        coords={
            "latitude": ("latitude", lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": (
                "longitude",
                lon,
                {"units": "degrees_east", "standard_name": "longitude"},
            ),
        },
    )


def _hills(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lowland of 80 m with Gaussian hills, in metres, shape (latitude, longitude)."""
    height = np.full((len(lat), len(lon)), 80.0)
    for centre_lon, centre_lat, top, width in _HILLS:
        east = (lon - centre_lon) * 111.2 * 0.757
        north = (lat - centre_lat) * 111.2
        bump = np.outer(np.exp(-((north / width) ** 2) / 2), np.exp(-((east / width) ** 2) / 2))
        height += top * bump
    return height


def _inside(
    x: NDArray[np.float64], y: NDArray[np.float64], corners: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether points lie in a polygon: an odd number of edges crossed by a ray to the west."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x > x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside


def _cell_means(
    dem: xr.Dataset, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of land and mean elevation of the land in each cell of the window."""
    lon, lat = dem["longitude"].values, dem["latitude"].values
    row = grid.cell_index(np.full_like(lat, lon[0]), lat)[0] - rows[0]
    column = grid.cell_index(lon, np.full_like(lon, lat[0]))[1] - columns[0]
    in_rows = (row >= 0) & (row < len(rows))
    in_columns = (column >= 0) & (column < len(columns))
    cell = (row[in_rows][:, None] * len(columns) + column[in_columns]).ravel()
    land = dem["land"].values[np.ix_(in_rows, in_columns)].ravel()
    height = dem["elevation"].values[np.ix_(in_rows, in_columns)].ravel()
    size = len(rows) * len(columns)
    n = np.bincount(cell, minlength=size)
    n_land = np.bincount(cell, weights=land, minlength=size)
    total = np.bincount(cell, weights=np.where(land, height, 0.0), minlength=size)
    shape = len(rows), len(columns)
    return (n_land / n).reshape(shape), (total / np.maximum(n_land, 1)).reshape(shape)
