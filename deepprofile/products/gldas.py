"""GLDAS-2.1 (NOAH025_3H): three-hourly soil moisture of the Noah model on a 0.25 degree grid.

The files give the water in each layer in kg m-2; divided by 1000 kg m-3 and by the layer's own
thickness in metres it is m3 m-3 (Rui, Beaudoing and Loeser, README of the GLDAS version 2 data).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.products.base import Field, Granule, GranuleError, SetAside
from deepprofile.products.files import (
    file_name,
    find_files,
    granules_from_names,
    nothing_found,
    open_netcdf,
)
from deepprofile.products.latlon import LatLonProduct
from deepprofile.products.product import select_layers
from deepprofile.profile import Layer

NAME = "gldas"
PATTERN = "GLDAS_NOAH025_3H.AYYYYMMDD.HHMM.021.nc4"
SPACING = 0.25
"""Distance of the grid points in degrees."""
WATER_DENSITY = 1000.0
"""Density of water in kg m-3."""
_NAME = re.compile(
    r"GLDAS_NOAH025_3H\.A(?P<day>\d{8})\.(?P<time>\d{4})\.(?P<version>\d{3})\.nc4(\.SUB\.nc4)?"
)


def _field(top: float, bottom: float) -> Field:
    layer = Layer(NAME, top, bottom)
    depths = f"{top * 100:g}_{bottom * 100:g}cm"
    return Field(
        name=f"soil_moisture_{depths}",
        units="m3 m-3",
        valid_min=0.0,
        valid_max=1.0,
        source=f"SoilMoi{depths}_inst",
        layer=layer,
        scale=1.0 / (WATER_DENSITY * layer.thickness),
        file_units="kg m-2",
    )


FIELDS = (_field(0.0, 0.1), _field(0.1, 0.4), _field(0.4, 1.0))


class Gldas(LatLonProduct):
    """GLDAS-2.1 granules, global or regional subsets, and their daily fields.

    Args:
        layers: the layers to read, in order; by default all three.
    """

    name: ClassVar[str] = NAME
    steps_per_day: ClassVar[int] = 8

    def __init__(self, layers: Sequence[Layer] | None = None) -> None:
        self.fields = select_layers(FIELDS, layers)

    def axes(self, dataset: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The grid of 600 x 1440 points, 60°S to 90°N; it is the same in every file."""
        half = SPACING / 2
        return np.arange(-60 + half, 90, SPACING), np.arange(-180 + half, 180, SPACING)

    def granules(self, url: str, start: date, stop: date) -> tuple[list[Granule], list[SetAside]]:
        """Granules of the days from ``start`` up to ``stop``; see ``Product.granules``."""
        files = find_files(url)
        if not any(_NAME.fullmatch(file_name(name)) for name in files):
            raise nothing_found(url, self.name, PATTERN, files)
        return granules_from_names(files, _NAME, start, stop)

    @contextmanager
    def open(self, granule: Granule) -> Iterator[xr.Dataset]:
        """Open a granule; its time is that in its name. See ``LatLonProduct.open``."""
        with open_netcdf(
            granule.url,
            decode_times=False,
            drop_variables=["time", "time_bnds"],
            create_default_indexes=False,
        ) as dataset:
            if missing := {"time", "lat", "lon"} - set(dataset.sizes):
                raise GranuleError(granule.url, f"there is no dimension {', '.join(missing)}")
            if dataset.sizes["time"] != 1:
                raise GranuleError(
                    granule.url, f"it holds {dataset.sizes['time']} steps; expected 1"
                )
            named = dataset.rename(lat="latitude", lon="longitude")
            yield named.assign_coords(time=np.array([granule.start], "datetime64[ns]"))
