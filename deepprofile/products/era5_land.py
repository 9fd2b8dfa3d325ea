"""ERA5-Land: hourly soil moisture on a 0.1 degree grid (Muñoz-Sabater et al., 2021).

Files as the Climate Data Store gives them, in its old schema (``time``, and ``expver`` as a
dimension where final and preliminary data meet) and its new one (``valid_time``, ``number``,
``expver`` along time). The values are instantaneous: a UTC day has the hours 00 to 23.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import lru_cache
from math import floor
from typing import ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.products.base import (
    Field,
    Granule,
    GranuleError,
    MissingVariableError,
    SetAside,
    hours_of,
)
from deepprofile.products.files import (
    file_versions,
    find_files,
    nothing_found,
    open_netcdf,
)
from deepprofile.products.latlon import LatLonProduct
from deepprofile.products.product import select_layers
from deepprofile.profile import Layer

NAME = "era5_land"
SUFFIX = ".nc"
PATTERN = "*.nc with a variable swvl1, swvl2 or swvl3"
PRELIMINARY = "5"
"""The ``expver`` of preliminary data (ERA5T) in the Climate Data Store, without zeros before it."""


def _field(number: int, top: float, bottom: float) -> Field:
    return Field(
        name=f"soil_moisture_{top * 100:g}_{bottom * 100:g}cm",
        units="m3 m-3",
        # Packing to 16 bits puts dry soil up to a rounding step below zero.
        valid_min=-1e-3,
        valid_max=1.0,
        source=f"swvl{number}",
        layer=Layer(NAME, top, bottom),
        file_units="m**3 m**-3",
    )


FIELDS = (_field(1, 0.0, 0.07), _field(2, 0.07, 0.28), _field(3, 0.28, 1.0))


class Era5Land(LatLonProduct):
    """ERA5-Land files of any length and their daily fields.

    Args:
        layers: the layers to read, in order; by default all three.
        spacing: distance of the grid points in degrees; 0.25 reads ERA5 itself.
    """

    name: ClassVar[str] = NAME
    steps_per_day: ClassVar[int] = 24

    def __init__(self, layers: Sequence[Layer] | None = None, spacing: float = 0.1) -> None:
        self.fields = select_layers(FIELDS, layers)
        self.spacing = spacing

    def axes(self, dataset: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The grid that goes through the points of ``dataset``.

        The Climate Data Store begins it at the corner of the area that was asked for, which need
        not be a multiple of the spacing.
        """
        # Rounded, since files hold them in single or in double precision, and so that files of
        # other areas give the same points to the last bit.
        south = round(float(dataset["latitude"].min()), 4)
        west = round(float(dataset["longitude"].min()), 4)
        south -= self.spacing * floor((south + 90.0) / self.spacing + 1e-6)
        turn = np.arange(round(360.0 / self.spacing), dtype=np.float64)
        latitudes = np.arange(south, 90.0 + 1e-6, self.spacing)
        longitudes = west % self.spacing + self.spacing * turn
        return latitudes.round(4), longitudes.round(4)

    def granules(self, url: str, start: date, stop: date) -> tuple[list[Granule], list[SetAside]]:
        """Granules of the days from ``start`` up to ``stop``; see ``Product.granules``.

        The header of every netCDF file is read, since names don't say which times are in it.
        Final data come before preliminary data, so that they are taken where both exist.
        """
        files = find_files(url)
        tags = file_versions(url)
        granules: list[Granule] = []
        set_aside: list[SetAside] = []
        foreign: list[MissingVariableError] = []
        for name in (name for name in files if name.endswith(SUFFIX)):
            try:
                granules.append(_granule(name, tags.get(name, "")))
            except GranuleError as error:
                set_aside.append(SetAside(name, error.reason))
                if isinstance(error, MissingVariableError):
                    foreign.append(error)
        if not granules and len(set_aside) == len(foreign):
            raise nothing_found(url, self.name, PATTERN, files)
        newest, duplicates = _final_first(granules)
        return [g for g in newest if g.overlaps(start, stop)], set_aside + duplicates

    @contextmanager
    def open(self, granule: Granule) -> Iterator[xr.Dataset]:
        """Open a file of either schema; see ``LatLonProduct.open``."""
        with _open(granule.url) as dataset:
            yield dataset

    def load(self, window: xr.DataArray) -> NDArray[np.floating]:
        """Values of a piece; final data, and preliminary data where there are none."""
        if "expver" not in window.dims:
            return super().load(window)
        order = np.argsort(window["expver"].to_numpy().astype(np.int64))
        merged = super().load(window.isel(expver=int(order[0])))
        for position in order[1:]:
            other = super().load(window.isel(expver=int(position)))
            merged = np.where(np.isnan(merged), other, merged)
        return merged


@lru_cache(maxsize=65536)
def _granule(url: str, tag: str) -> Granule:
    """What the header of a file says; read once for each version of the file, by its tag."""
    with _open(url) as dataset:
        if not any(f.source in dataset for f in FIELDS):
            found = ", ".join(map(str, dataset.data_vars))
            raise MissingVariableError(url, f"there is no soil moisture; it has {found}")
        times = dataset["time"].to_numpy().astype("datetime64[s]")
        if times.size == 0 or (np.diff(times) <= np.timedelta64(0, "s")).any():
            raise GranuleError(url, f"its {times.size} times are not ascending")
        versions = _versions(dataset)
        return Granule(url, times[0], times[-1], times.size, versions, hours_of(times))


@contextmanager
def _open(url: str) -> Iterator[xr.Dataset]:
    with open_netcdf(url) as dataset:
        if "valid_time" in dataset.dims:
            dataset = dataset.drop_vars("time", errors="ignore").rename(valid_time="time")
        if "time" not in dataset.dims:
            raise GranuleError(url, f"there is no dimension time or valid_time: {dataset.sizes}")
        if dataset.sizes.get("number", 1) != 1:
            raise GranuleError(url, f"it holds {dataset.sizes['number']} members; expected 1")
        yield dataset.squeeze("number") if "number" in dataset.dims else dataset


def _versions(dataset: xr.Dataset) -> str:
    """The experiment versions in a file, such as ``"1"`` (final), ``"5"`` or ``"1+5"``."""
    if "expver" not in dataset:
        return ""
    return "+".join(map(str, np.unique(dataset["expver"].to_numpy().astype(np.int64))))


def _final_first(granules: Sequence[Granule]) -> tuple[list[Granule], list[SetAside]]:
    """Granules in the order of reading, final ones first, and those that repeat another."""
    kept: dict[tuple[np.datetime64, np.datetime64, int], Granule] = {}
    duplicates: list[SetAside] = []
    for granule in sorted(
        granules, key=lambda g: (PRELIMINARY in g.version.split("+"), g.start, g.url)
    ):
        first = kept.setdefault((granule.start, granule.last, granule.steps), granule)
        if first is not granule:
            duplicates.append(SetAside(granule.url, f"duplicate of {first.url}, which is kept"))
    return list(kept.values()), duplicates
