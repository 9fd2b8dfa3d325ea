"""Layer means as one CF netCDF-4 file, written piece by piece."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import netCDF4
import numpy as np
import xarray as xr

from deepprofile.export.part import Part
from deepprofile.export.provenance import history_line
from deepprofile.export.request import depths
from deepprofile.store.layout import EPOCH, TILE_ROWS
from deepprofile.store.parts import SOIL_MOISTURE

CHUNK_DAYS, CHUNK_COLUMNS = 8, 1024
"""A chunk is 8 days of one layer, a row of tiles high: 1.8 MB before compression."""
DEFLATE_LEVEL: Final = 4
_TIME = {"units": f"days since {EPOCH.isoformat()}", "calendar": "proleptic_gregorian"}
_DEPTH = {"units": "m", "positive": "down"}


def write_netcdf(part: Part, path: Path, on_piece: Callable[[], None]) -> None:
    """Write all days and layers of ``part`` into a new file.

    Args:
        part: what is exported.
        path: the file; replaced where there is one.
        on_piece: called after each piece that was read and written.
    """
    _coordinates(part).to_netcdf(path, engine="netcdf4", format="NETCDF4", encoding=_encoding(part))
    with netCDF4.Dataset(path, "a") as file:
        means, flag = _create_means(file), _create_flag(file, part)
        for days in part.spans():
            for rows in part.bands():
                means[days, :, rows, :], flag[days, rows, :] = part.read(days, rows)
                on_piece()


def _coordinates(part: Part) -> xr.Dataset:
    """All but the values: axes, boundaries, grid mapping, global attributes."""
    kept = part.cube.coords.to_dataset().drop_vars("degree").drop_encoding().reset_coords()
    tops, bottoms = np.array([(layer.top, layer.bottom) for layer in part.layers]).T
    time = kept["time"].values
    dataset = kept.assign(
        time_bounds=(("time", "bound"), np.stack([time, time + np.timedelta64(1, "D")], axis=1)),
        depth=("layer", (tops + bottoms) / 2, {"standard_name": "depth", **_DEPTH}),
        depth_bounds=(("layer", "bound"), np.stack([tops, bottoms], axis=1)),
        top=("layer", tops, {"long_name": "upper boundary of the layer", **_DEPTH}),
        bottom=("layer", bottoms, {"long_name": "lower boundary of the layer", **_DEPTH}),
    )
    for name in ("time", "y", "x", "depth"):
        dataset[name].attrs["bounds"] = f"{name}_bounds"
    dataset["time"].attrs["units_metadata"] = "leap_seconds: none"
    dataset.attrs = _attributes(part)
    return dataset


def _attributes(part: Part) -> dict[str, str]:
    layers, days = ", ".join(map(depths, part.layers)), part.days
    what = f"{layers}, {days[0]} to {days[-1]}, snapshot {part.provenance['snapshot']}"
    return {
        "Conventions": "CF-1.11",
        "title": f"DeepProfile daily soil moisture of {layers} on the 9 km EASE-Grid 2.0",
        "source": "DeepProfile: profiles of soil moisture predicted from SMAP L4",
        "history": history_line(what),
        **part.provenance,
    }


def _encoding(part: Part) -> dict[str, dict[str, Any]]:
    names = ["x", "y", "x_bounds", "y_bounds", "latitude", "longitude"]
    names += ["depth", "depth_bounds", "top", "bottom"]
    plain: dict[str, dict[str, Any]] = {name: {"_FillValue": None} for name in names}
    return {**plain, "time": {**_TIME, "dtype": "i4"}, "time_bounds": {**_TIME, "dtype": "i4"}}


def _create_means(file: netCDF4.Dataset) -> "netCDF4.Variable[Any]":
    attributes = {
        **SOIL_MOISTURE,
        "grid_mapping": "spatial_ref",
        "coordinates": "depth top bottom latitude longitude",
        "ancillary_variables": "flag",
    }
    return _create(
        file, "soil_moisture", np.float32, ("time", "layer", "y", "x"), np.nan, attributes
    )


def _create_flag(file: netCDF4.Dataset, part: Part) -> "netCDF4.Variable[Any]":
    attributes = {
        "long_name": "state of the profile",
        "standard_name": "status_flag",
        "flag_values": np.array(list(part.meanings), np.uint8),
        "flag_meanings": " ".join(part.meanings.values()),
        "grid_mapping": "spatial_ref",
        "coordinates": "latitude longitude",
    }
    return _create(file, "flag", np.uint8, ("time", "y", "x"), None, attributes)


def _create(
    file: netCDF4.Dataset,
    name: str,
    dtype: type[np.float32 | np.uint8],
    dims: tuple[str, ...],
    fill_value: float | None,
    attributes: dict[str, Any],
) -> "netCDF4.Variable[Any]":
    wanted = {"time": CHUNK_DAYS, "layer": 1, "y": TILE_ROWS, "x": CHUNK_COLUMNS}
    variable: netCDF4.Variable[Any] = file.createVariable(
        name,
        dtype,
        dims,
        compression="zlib",
        complevel=DEFLATE_LEVEL,
        shuffle=True,
        chunksizes=[min(wanted[dim], file.dimensions[dim].size) for dim in dims],
        fill_value=fill_value,
    )
    variable.setncatts(attributes)
    return variable
