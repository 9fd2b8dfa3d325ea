"""The global 9 km EASE-Grid 2.0 (M09) on which every cube lies.

The grid is the cylindrical equal-area projection EPSG:6933 of Brodzik et al. (2012,
doi:10.3390/ijgi1010032): latitude depends on the row alone and longitude on the column alone.
Row 0 is the northernmost, column 0 the westernmost.
"""

from functools import cache

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS, Transformer

EPSG = 6933
N_ROWS = 1624
N_COLUMNS = 3856
CELL_SIZE = 9008.055210146
"""Side of a cell in metres (NSIDC, EASE-Grid 2.0 M09)."""
X_WEST = -N_COLUMNS / 2 * CELL_SIZE
Y_NORTH = N_ROWS / 2 * CELL_SIZE


def x_centers() -> NDArray[np.float64]:
    """Projected x of the cell centres in metres, west to east, shape (3856,)."""
    return X_WEST + (np.arange(N_COLUMNS, dtype=np.float64) + 0.5) * CELL_SIZE


def y_centers() -> NDArray[np.float64]:
    """Projected y of the cell centres in metres, north to south, shape (1624,)."""
    return Y_NORTH - (np.arange(N_ROWS, dtype=np.float64) + 0.5) * CELL_SIZE


@cache
def _to_geographic() -> Transformer:
    return Transformer.from_crs(EPSG, 4326, always_xy=True)


@cache
def _to_projected() -> Transformer:
    return Transformer.from_crs(4326, EPSG, always_xy=True)


def longitudes() -> NDArray[np.float64]:
    """Longitude of each column's centre in degrees east, -180 to 180, shape (3856,)."""
    x = x_centers()
    return np.asarray(_to_geographic().transform(x, np.zeros_like(x))[0])


def latitudes() -> NDArray[np.float64]:
    """Latitude of each row's centre in degrees north, descending, shape (1624,)."""
    y = y_centers()
    return np.asarray(_to_geographic().transform(np.zeros_like(y), y)[1])


def longitude_edges() -> NDArray[np.float64]:
    """Longitude of the columns' boundaries in degrees east, -180 to 180, shape (3857,)."""
    x = X_WEST + np.arange(N_COLUMNS + 1) * CELL_SIZE
    return np.asarray(_to_geographic().transform(x, np.zeros_like(x))[0])


def latitude_edges() -> NDArray[np.float64]:
    """Latitude of the rows' boundaries in degrees north, descending, shape (1625,)."""
    y = Y_NORTH - np.arange(N_ROWS + 1) * CELL_SIZE
    return np.asarray(_to_geographic().transform(np.zeros_like(y), y)[1])


def cell_index(
    longitude: ArrayLike, latitude: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the cell that holds each point.

    Args:
        longitude: degrees east, any convention (-180 to 180 or 0 to 360).
        latitude: degrees north, same shape.

    Returns:
        Row and column, int64, in the shape of the input. A point poleward of the grid
        (about 85.04 degrees) or not finite gets -1 for both.
    """
    lon, lat = np.broadcast_arrays(
        np.asarray(longitude, dtype=np.float64), np.asarray(latitude, dtype=np.float64)
    )
    known = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90.0)
    wrapped = (np.where(known, lon, 0.0) + 180.0) % 360.0 - 180.0
    x, y = _to_projected().transform(wrapped, np.where(known, lat, 0.0))
    column = np.floor((np.asarray(x) - X_WEST) / CELL_SIZE).astype(np.int64)
    row = np.floor((Y_NORTH - np.asarray(y)) / CELL_SIZE).astype(np.int64)
    known &= (row >= 0) & (row < N_ROWS)
    return np.where(known, row, -1), np.where(known, np.clip(column, 0, N_COLUMNS - 1), -1)


def spatial_ref() -> xr.DataArray:
    """CF grid-mapping variable of EPSG:6933, a scalar with the attributes."""
    return xr.DataArray(np.int32(0), attrs=CRS.from_epsg(EPSG).to_cf(), name="spatial_ref")


def ease2_grid() -> xr.Dataset:
    """The global 9 km grid as a labelled dataset.

    Returns:
        Coordinates ``x(x)``, ``y(y)`` in metres, ``longitude(x)``, ``latitude(y)`` in degrees
        and the grid mapping ``spatial_ref``; no data variables.
    """
    return xr.Dataset(
        coords={
            "y": ("y", y_centers(), {"units": "m", "standard_name": "projection_y_coordinate"}),
            "x": ("x", x_centers(), {"units": "m", "standard_name": "projection_x_coordinate"}),
            "latitude": (
                "y",
                latitudes(),
                {"units": "degrees_north", "standard_name": "latitude"},
            ),
            "longitude": (
                "x",
                longitudes(),
                {"units": "degrees_east", "standard_name": "longitude"},
            ),
            "spatial_ref": spatial_ref(),
        }
    )
