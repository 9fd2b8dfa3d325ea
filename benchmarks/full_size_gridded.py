"""Synthetic files of the real size of ERA5-Land and GLDAS-2.1, and an elevation model.

One time step a day. Their soil moisture is the smooth part of that in the SMAP L4 granules of
`full_size`, with errors of their own, so that triple collocation has something to find; the numbers
mean nothing beyond that.
"""

from datetime import date, timedelta
from pathlib import Path

import h5py
import numpy as np
import xarray as xr
from full_size import ANTARCTICA, FIELDS, SHAPE, real_land, smooth
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.products import PRODUCTS

ROOT_ZONE = next(i for i, field in enumerate(FIELDS) if field.source == "sm_rootzone")
HOUR = 12
ERROR = 0.03
"""Standard deviation of a product's error in m3 m-3."""
LATITUDES = {"era5_land": np.linspace(90, -90, 1801), "gldas": np.arange(-59.875, 90, 0.25)}
LONGITUDES = {"era5_land": np.arange(3600) / 10, "gldas": np.arange(-179.875, 180, 0.25)}
SPACING = 1 / 24
"""Distance of the elevation model's points in degrees."""


def write_era5_land(folder: Path, first: date, n_days: int, distinct: int) -> None:
    """A file a day of one step, in the new schema of the Climate Data Store."""
    soil = _Soil("era5_land", distinct)
    for d in range(n_days):
        day = first + timedelta(days=d)
        coordinates = {
            "valid_time": np.array([f"{day}T{HOUR:02d}"], "datetime64[ns]"),
            "latitude": LATITUDES["era5_land"],
            "longitude": LONGITUDES["era5_land"],
        }
        variables = {
            field.source: (
                ("valid_time", "latitude", "longitude"),
                soil.moisture(d, layer)[None],
                {"units": field.file_units},
            )
            for layer, field in enumerate(PRODUCTS["era5_land"].fields)
        }
        packing = {"dtype": "int16", "scale_factor": 2e-5, "add_offset": 0.5, "_FillValue": -32767}
        xr.Dataset(variables, coordinates).to_netcdf(
            folder / f"era5_land_{day:%Y%m%d}.nc", encoding=dict.fromkeys(variables, packing)
        )


def write_gldas(folder: Path, first: date, n_days: int, distinct: int) -> None:
    """A granule a day."""
    soil = _Soil("gldas", distinct)
    for d in range(n_days):
        day = first + timedelta(days=d)
        variables = {
            field.source: (
                ("time", "lat", "lon"),
                (soil.moisture(d, layer) / np.float32(field.scale))[None],
                {"units": field.file_units},
            )
            for layer, field in enumerate(PRODUCTS["gldas"].fields)
        }
        coordinates = {
            "time": np.array([f"{day}T{HOUR:02d}"], "datetime64[ns]"),
            "lat": LATITUDES["gldas"],
            "lon": LONGITUDES["gldas"],
        }
        xr.Dataset(variables, coordinates).to_netcdf(
            folder / f"GLDAS_NOAH025_3H.A{day:%Y%m%d}.{HOUR:02d}00.021.nc4",
            encoding={name: {"dtype": "float32", "_FillValue": -9999.0} for name in variables},
        )


def write_relief(path: Path) -> None:
    """An elevation model of all land, in metres."""
    latitudes = np.arange(ANTARCTICA, 85, SPACING)
    longitudes = np.arange(-180, 180, SPACING)
    place = _cells(latitudes, longitudes)
    rough = np.random.default_rng(5).normal(0.0, 20.0, (latitudes.size, longitudes.size))
    with h5py.File(path, "w") as file:
        file["latitude"], file["longitude"] = latitudes, longitudes
        file["elevation"] = (2000.0 * smooth(77, 60)[place] + rough).astype(np.float32)
        file["elevation"].attrs["units"] = "m"
        for axis, name in enumerate(("latitude", "longitude")):
            file[name].make_scale(name)
            file["elevation"].dims[axis].attach_scale(file[name])


class _Soil:
    """Soil moisture on a product's own grid; NaN where the nearest 9 km cell is sea."""

    def __init__(self, product: str, distinct: int) -> None:
        place = _cells(LATITUDES[product], (LONGITUDES[product] + 180) % 360 - 180)
        share = [smooth(state * 100 + ROOT_ZONE, 40)[place] for state in range(distinct)]
        self._states = [np.float32(0.1) + np.float32(0.4) * part for part in share]
        self._sea = ~real_land()[place]
        self._rng = np.random.default_rng(sorted(LATITUDES).index(product))

    def moisture(self, day: int, layer: int) -> NDArray[np.float32]:
        """Of a layer, drier with depth, in m3 m-3."""
        state = self._states[day % len(self._states)]
        noise = self._rng.standard_normal(state.shape, np.float32)
        values = np.clip(state * np.float32(1 - 0.1 * layer) + np.float32(ERROR) * noise, 0.01, 0.9)
        return np.where(self._sea, np.float32(np.nan), values)


def _cells(
    latitudes: NDArray[np.float64], longitudes: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of the 9 km cell of each point of a grid, at the poles of the nearest one."""
    rows, _ = grid.cell_index(np.zeros_like(latitudes), latitudes)
    _, columns = grid.cell_index(longitudes, np.zeros_like(longitudes))
    inside = np.where(rows >= 0, rows, np.where(latitudes > 0, 0, SHAPE[0] - 1))
    return np.ix_(inside, columns)
