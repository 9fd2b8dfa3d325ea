"""ERA5-Land and GLDAS files of the demo Earth in the agencies' own layouts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.synthetic.config import STEPS_PER_DAY, EarthConfig
from deepprofile.synthetic.flaws import Flaws
from deepprofile.synthetic.noise import Float32
from deepprofile.synthetic.products import GriddedProduct
from deepprofile.synthetic.smap import months
from deepprofile.synthetic.template import GranuleTemplate
from deepprofile.synthetic.truth import GLDAS_LAYERS

FILL = np.float32(-9999.0)
_DAY, _TIME, _CLOCK = "BEGINDAY", "BEGINT", "HH:MM:SS"
_GLDAS_NAMES = [f"SoilMoi{top * 100:g}_{bottom * 100:g}cm_inst" for top, bottom in GLDAS_LAYERS]


def write_era5(
    product: GriddedProduct,
    config: EarthConfig,
    flaws: Flaws,
    root: Path,
    progress: Callable[[float], None],
) -> int:
    """Write hourly ERA5-Land in monthly files, in both schemas of the Climate Data Store.

    The files of odd months have the old schema (``time`` in hours since 1900, packed to 16
    bits, longitude 0-360), those of even months the new one (``valid_time``, ``number``,
    ``expver``, float32, longitude ±180). Returns the number of files.
    """
    root.mkdir(parents=True, exist_ok=True)
    hours = np.setdiff1d(np.arange(config.n_days * 24), np.array(flaws.era5_missing, dtype=int))
    times = np.datetime64(config.start, "h") + hours
    month = times.astype("datetime64[M]")
    found = np.unique(month)
    for i, this in enumerate(found):
        values = _hourly(product, hours[month == this], config)
        old = int(str(this)[5:]) % 2 == 1
        dataset = _era5_dataset(product, values, times[month == this], old)
        dataset.to_netcdf(
            root / f"ERA5-Land_swvl_{str(this).replace('-', '')}.nc", engine="netcdf4"
        )
        progress((i + 1) / len(found))
    return len(found)


def write_gldas(
    product: GriddedProduct,
    config: EarthConfig,
    flaws: Flaws,
    root: Path,
    progress: Callable[[float], None],
) -> int:
    """Write 3-hourly GLDAS-2.1 granules in folders by year and day; returns their number."""
    template = GranuleTemplate(lambda file: _build_gldas(file, product), (_DAY, _TIME, _CLOCK))
    missing, written = set(flaws.gldas_missing), 0
    total = config.n_days * STEPS_PER_DAY
    for step, water in _water(product, config):
        if step in missing:
            continue
        path = root / gldas_path(config, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_gldas_image(template, water, _instant(config, step)))
        written += 1
        progress((step + 1) / total)
    return written


def gldas_path(config: EarthConfig, step: int) -> Path:
    """Path of a granule below the root of the archive."""
    time = _instant(config, step).item()
    folder = Path(f"{time:%Y}") / f"{time:%j}"
    return folder / f"GLDAS_NOAH025_3H.A{time:%Y%m%d}.{time:%H%M}.021.nc4"


def _instant(config: EarthConfig, step: int) -> np.datetime64:
    return np.datetime64(config.start, "s") + np.timedelta64(step * 3, "h")


def _water(product: GriddedProduct, config: EarthConfig) -> Iterator[tuple[int, Float32]]:
    """Every step and the water in the layers in kg m⁻², (layers, latitude, longitude)."""
    thickness = np.array([bottom - top for top, bottom in GLDAS_LAYERS], dtype=np.float32)
    for span in months(config):
        values = product.values(span) * (1000.0 * thickness[:, None])
        for step in range(span.start, span.stop):
            field = np.full((len(thickness), *product.grid.land.shape), FILL)
            field[:, product.grid.land] = values[step - span.start]
            yield step, field


def _gldas_image(template: GranuleTemplate, water: Float32, time: np.datetime64) -> bytearray:
    moment = time.item()
    clock = np.datetime64(f"2000-01-01T{moment:%H:%M}", "s")
    minutes = float((time - clock) / np.timedelta64(1, "m"))
    values: dict[str, NDArray[Any]] = dict(zip(_GLDAS_NAMES, water, strict=True))
    values["time"] = np.array([minutes])
    values["time_bnds"] = np.array([[minutes - 180.0, minutes]])
    texts = {_DAY: f"{moment:%Y%m%d}", _TIME: f"{moment:%H%M%S}", _CLOCK: f"{moment:%H:%M:%S}"}
    return template.fill(values, texts)


def _build_gldas(file: h5py.File, product: GriddedProduct) -> None:
    """Lay out a granule as the agency's subsets have it."""
    south, west = np.float32(product.grid.latitude[0]), np.float32(product.grid.longitude[0])
    file.attrs.update(
        {
            "missing_value": FILL,
            "inst definision:": np.bytes_("instantaneous"),
            "title": np.bytes_("GLDAS2.1 LIS land surface model output"),
            "institution": np.bytes_("DeepProfile demo Earth, synthetic data"),
            "source": np.bytes_("Noah_v3.3"),
            "conventions": np.bytes_("CF-1.6"),
            "MAP_PROJECTION": np.bytes_("EQUIDISTANT CYLINDRICAL"),
            "SOUTH_WEST_CORNER_LAT": south,
            "SOUTH_WEST_CORNER_LON": west,
            "DX": np.float32(0.25),
            "DY": np.float32(0.25),
        }
    )
    time = file.create_dataset("time", data=np.zeros(1))
    time.attrs.update(
        {
            "units": np.bytes_(f"minutes since 2000-01-01 {_CLOCK}"),
            "long_name": np.bytes_("time"),
            "time_increment": np.bytes_("180"),
            "begin_date": np.bytes_(_DAY),
            "begin_time": np.bytes_(_TIME),
            "bounds": np.bytes_("time_bnds"),
        }
    )
    for name, values, units, word in (
        ("lat", product.grid.latitude, "degrees_north", "latitude"),
        ("lon", product.grid.longitude, "degrees_east", "longitude"),
    ):
        axis = file.create_dataset(name, data=values.astype(np.float32))
        axis.attrs.update(_gldas_attributes(units, word, word))
    file.create_dataset("bnds", data=np.zeros(2, dtype=">f4"))
    for name in ("time", "lat", "lon"):
        file[name].make_scale(name)
    file["bnds"].make_scale("This is a netCDF dimension but not a netCDF variable.         2")
    _attach(file.create_dataset("time_bnds", data=np.zeros((1, 2))), "time", "bnds")
    for name in _GLDAS_NAMES:
        field = file.create_dataset(name, data=np.full((1, *product.grid.land.shape), FILL))
        field.attrs.update(_gldas_attributes("kg m-2", "soil_moisture_content", "Soil moisture"))
        field.attrs["cell_methods"] = np.bytes_("time: point")
        _attach(field, "time", "lat", "lon")


def _gldas_attributes(units: str, standard_name: str, long_name: str) -> dict[str, Any]:
    return {
        "units": np.bytes_(units),
        "standard_name": np.bytes_(standard_name),
        "long_name": np.bytes_(long_name),
        "scale_factor": np.array([1.0], np.float32),
        "add_offset": np.array([0.0], np.float32),
        "missing_value": np.array([FILL]),
        "_FillValue": np.array([FILL]),
    }


def _attach(dataset: h5py.Dataset, *scales: str) -> None:
    for dimension, scale in zip(dataset.dims, scales, strict=True):
        dimension.attach_scale(dataset.file[scale])


def _hourly(product: GriddedProduct, hours: NDArray[np.int64], config: EarthConfig) -> Float32:
    """Values at hours between the steps of three, (hours, layers, boxes)."""
    last = config.n_days * STEPS_PER_DAY - 1
    first = int(hours[0]) // 3
    stop = min(int(hours[-1]) // 3 + 2, last + 1)
    values = product.values(slice(first, stop))
    before = hours // 3 - first
    after = np.minimum(before + 1, len(values) - 1)
    share = (hours % 3 / 3.0).astype(np.float32)[:, None, None]
    return np.asarray((1.0 - share) * values[before] + share * values[after])


def _era5_dataset(
    product: GriddedProduct, values: Float32, times: NDArray[np.datetime64], old: bool
) -> xr.Dataset:
    """One file; latitude descends."""
    dims = ("time" if old else "valid_time", "latitude", "longitude")
    longitude = product.grid.longitude % 360.0 if old else product.grid.longitude
    dataset = xr.Dataset(
        coords={
            "latitude": (
                "latitude",
                product.grid.latitude[::-1],
                _axis("latitude", "degrees_north"),
            ),
            "longitude": ("longitude", longitude, _axis("longitude", "degrees_east")),
        },
        attrs={
            "Conventions": "CF-1.6" if old else "CF-1.7",
            "institution": "DeepProfile demo Earth, synthetic data",
        },
    )
    for layer in range(3):
        field = np.full((len(values), *product.grid.land.shape), np.nan, np.float32)
        field[:, product.grid.land] = values[:, layer]
        attributes = {
            "units": "m**3 m**-3",
            "long_name": f"Volumetric soil water layer {layer + 1}",
        }
        name = f"swvl{layer + 1}"
        dataset[name] = (dims, field[:, ::-1], attributes)
        dataset[name].encoding = {"zlib": True, "complevel": 1, "shuffle": True}
        dataset[name].encoding |= _packing(field) if old else {"_FillValue": np.float32(np.nan)}
    return _old_times(dataset, times) if old else _new_times(dataset, times)


def _axis(name: str, units: str) -> dict[str, str]:
    return {"units": units, "standard_name": name, "long_name": name}


def _packing(field: Float32) -> dict[str, Any]:
    """16-bit packing between the field's extremes, as the Climate Data Store does it."""
    low, high = float(np.nanmin(field)), float(np.nanmax(field))
    return {
        "dtype": "int16",
        "scale_factor": max(high - low, 1e-6) / 65532.0,
        "add_offset": (high + low) / 2.0,
        "_FillValue": np.int16(-32767),
        "missing_value": np.int16(-32767),
    }


def _old_times(dataset: xr.Dataset, times: NDArray[np.datetime64]) -> xr.Dataset:
    hours = (times - np.datetime64("1900-01-01T00", "h")).astype(np.int32)
    attributes = {
        "units": "hours since 1900-01-01 00:00:00.0",
        "long_name": "time",
        "calendar": "gregorian",
    }
    return dataset.assign_coords(time=("time", hours, attributes))


def _new_times(dataset: xr.Dataset, times: NDArray[np.datetime64]) -> xr.Dataset:
    seconds = (times - np.datetime64("1970-01-01T00", "h")).astype(np.int64) * 3600
    attributes = {
        "units": "seconds since 1970-01-01",
        "standard_name": "time",
        "long_name": "time",
        "calendar": "proleptic_gregorian",
    }
    number = {"long_name": "ensemble member numerical id", "units": "1"}
    return dataset.assign_coords(
        valid_time=("valid_time", seconds, attributes),
        number=((), np.int64(0), number | {"standard_name": "realization"}),
        expver=("valid_time", np.full(len(times), "0001", dtype=object)),
    )
