"""SMAP L4 (SPL4SMGP): three-hourly geophysical fields on the global 9 km grid itself.

Granules, layout, fill value and valid ranges follow the product specification (Reichle et al.,
SMAP Level 4 surface and root zone soil moisture, version 7 and later).
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib import resources
from typing import Any, ClassVar

import h5py
import numpy as np
from h5py import h5a, h5d, h5s
from numba import njit
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.products.base import (
    Field,
    Granule,
    GranuleError,
    MissingVariableError,
    SetAside,
)
from deepprofile.products.files import (
    check_units,
    file_name,
    find_files,
    granules_from_names,
    nothing_found,
)
from deepprofile.products.product import Product
from deepprofile.products.ranges import Source, open_source
from deepprofile.profile import Layer

NAME = "smap_l4"
PATTERN = "SMAP_L4_SM_gph_YYYYMMDDTHHMMSS_Vv####_###.h5"
_NAME = re.compile(r"SMAP_L4_SM_gph_(?P<day>\d{8})T(?P<time>\d{6})_(?P<version>Vv\d{4}_\d{3})\.h5")
_LAYERS = {"sm_surface": Layer(NAME, 0.0, 0.05), "sm_rootzone": Layer(NAME, 0.0, 1.0)}
_FILL_VALUE = -9999.0
_OFF_LATTICE = 0.01
"""Largest distance of a coordinate from the centre of its cell, in cells."""


def _fields(*roles: str) -> tuple[Field, ...]:
    """Fields of the table of variables whose role begins with one of ``roles``."""
    table = resources.files("deepprofile.products").joinpath("spl4smgp.csv").read_text()
    return tuple(
        Field(
            name=line["variable"],
            units=line["units"],
            valid_min=float(line["valid_min"]),
            valid_max=float(line["valid_max"]),
            source=line["variable"],
            layer=_LAYERS.get(line["variable"]),
        )
        for line in csv.DictReader(table.splitlines())
        if line["role"].startswith(roles)
    )


FORCING = _fields("meteorological forcing", "surface state", "auxiliary")
"""The 39 inputs of the network."""
SOIL_MOISTURE = _fields("target")
"""Soil moisture 0-5 cm and 0-100 cm."""


@dataclass(frozen=True)
class SmapL4(Product):
    """SMAP L4 granules and their daily fields.

    Attributes:
        fields: the fields to read; by default all inputs, then soil moisture.
        group: the HDF5 group that holds the variables.
    """

    name: ClassVar[str] = NAME
    steps_per_day: ClassVar[int] = 8
    most_threads: ClassVar[int] = 8
    fields: tuple[Field, ...] = FORCING + SOIL_MOISTURE
    group: str = "Geophysical_Data"

    def granules(self, url: str, start: date, stop: date) -> tuple[list[Granule], list[SetAside]]:
        """Granules of the days from ``start`` up to ``stop``; see ``Product.granules``."""
        files = find_files(url)
        if not any(_NAME.fullmatch(file_name(name)) for name in files):
            raise nothing_found(url, self.name, PATTERN, files)
        return granules_from_names(files, _NAME, start, stop)

    def reader(self, rows: slice, columns: slice) -> "_Reader":
        """Reader on a window of the grid."""
        return _Reader(self, rows, columns)


@dataclass(frozen=True)
class _Overlap:
    """Where a granule lies on the grid, and the cells it shares with a window, in both."""

    rows: slice
    columns: slice
    file: tuple[slice, slice]
    window: tuple[slice, slice]


@dataclass(frozen=True)
class _Variable:
    """An open variable of a granule, its units checked."""

    dataset: h5d.DatasetID
    fill: np.float32


class _Reader:
    """Reads the part of each granule that lies in a window of the grid."""

    def __init__(self, product: SmapL4, rows: slice, columns: slice) -> None:
        self._product = product
        self._rows = rows
        self._columns = columns
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        self._values = np.empty((len(product.fields), *shape), dtype=np.float32)
        self._part = np.empty((0, 0, 0), dtype=np.float32)
        self._overlaps: dict[bytes, _Overlap] = {}

    def steps(
        self, granule: Granule, start: np.datetime64, stop: np.datetime64
    ) -> Iterator[tuple[np.datetime64, NDArray[np.float32]]]:
        """The one step of a granule."""
        if start <= granule.start < stop:
            with open_source(granule.url) as (file, source):
                self._read(file, source, granule.url)
            yield granule.start, self._values

    def to_grid(
        self, mean: NDArray[np.float32], n_steps: NDArray[np.uint8], required: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """The values as they are: the product lies on the grid."""
        return mean, n_steps

    def _read(self, file: h5py.File, source: Source, url: str) -> None:
        overlaps: list[_Overlap] = []
        variables: dict[int, _Variable] = {}

        def place() -> None:
            overlaps[:] = [self._overlap(file, url)]

        def open_one(i: int, field: Field) -> None:
            variables[i] = _open_variable(file, self._product.group, field, url)

        fields = self._product.fields
        source.complete([place, *(partial(open_one, i, field) for i, field in enumerate(fields))])
        (overlap,) = overlaps
        target = self._target(overlap)
        source.complete(
            [
                partial(_read_variable, variables[i], field, overlap.file, target[i], url, source)
                for i, field in enumerate(fields)
            ]
        )
        if target is not self._values:
            self._values.fill(np.nan)
            self._values[:, *overlap.window] = target

    def _target(self, overlap: _Overlap) -> NDArray[np.float32]:
        """Where the overlap is read to: straight to its place if it is the whole window."""
        shape = (len(self._values), *(s.stop - s.start for s in overlap.window))
        if shape == self._values.shape:
            return self._values
        if shape != self._part.shape:
            self._part = np.empty(shape, dtype=np.float32)
        return self._part

    def _overlap(self, file: h5py.File, url: str) -> _Overlap:
        """Where the granule lies; worked out once for all granules with the same coordinates."""
        for name in ("x", "y"):
            if name not in file:
                raise GranuleError(url, f"there is no coordinate {name} in metres")
        x, y = file["x"][()], file["y"][()]
        key = x.tobytes() + y.tobytes()
        if key not in self._overlaps:
            columns = _span(x, grid.X_WEST, grid.CELL_SIZE, grid.N_COLUMNS, "x", url)
            rows = _span(y, grid.Y_NORTH, -grid.CELL_SIZE, grid.N_ROWS, "y", url)
            self._overlaps[key] = _overlap(rows, columns, self._rows, self._columns, url)
        overlap = self._overlaps[key]
        _check_index(file, "cell_row", overlap.rows, url)
        _check_index(file, "cell_column", overlap.columns, url)
        return overlap


def _open_variable(file: h5py.File, group: str, field: Field, url: str) -> _Variable:
    """Open a variable and check its units.

    h5py's low-level calls take half the time of ``group[name][rows, columns]`` and a third of
    ``.attrs``, which counts with 41 variables in each of many thousand small files.
    """
    try:
        dataset = h5d.open(file.id, f"{group}/{field.source}".encode())
    except KeyError:
        if group not in file:
            raise MissingVariableError(
                url, f"there is no group {group}; it has {', '.join(file)}"
            ) from None
        raise MissingVariableError(url, f"there is no variable /{group}/{field.source}") from None
    check_units(url, field.source, _attribute(dataset, "units"), field.file_units or field.units)
    fill = _attribute(dataset, "_FillValue")
    return _Variable(dataset, np.float32(_FILL_VALUE if fill is None else fill))


def _read_variable(
    variable: _Variable,
    field: Field,
    window: tuple[slice, slice],
    target: NDArray[np.float32],
    url: str,
    source: Source,
) -> None:
    """Read a window of one variable into ``target``, NaN for its fill value."""
    shape, (rows, columns) = variable.dataset.shape, window
    if len(shape) != 2 or rows.stop > shape[0] or columns.stop > shape[1]:
        raise GranuleError(url, f"variable {field.source} has shape {shape}, not (y, x)")
    source.look_ahead(variable.dataset, window)
    space = variable.dataset.get_space()
    space.select_hyperslab((rows.start, columns.start), target.shape)
    variable.dataset.read(h5s.create_simple(target.shape), space, target)
    _fill_to_nan(target, variable.fill)


@njit(cache=True, nogil=True)
def _fill_to_nan(values, fill):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for r in range(values.shape[0]):
        for c in range(values.shape[1]):
            if values[r, c] == fill:
                values[r, c] = np.nan


def _attribute(dataset: h5d.DatasetID, name: str) -> Any:
    """Value of a scalar attribute, None if it is not there."""
    try:
        attribute = h5a.open(dataset, name.encode())
    except KeyError:
        return None
    value = np.empty(attribute.shape, dtype=attribute.dtype)
    attribute.read(value)
    return value.ravel()[0]


def _span(
    centers: NDArray[np.float64], origin: float, size: float, n: int, name: str, url: str
) -> slice:
    """Rows or columns of the grid, from the distance of the coordinates to its corner."""
    exact = (centers - origin) / size - 0.5
    position = np.round(exact)
    off = np.abs(exact - position).max(initial=0.0)
    consecutive = position.size > 0 and (np.diff(position) == 1).all()
    if not consecutive or off > _OFF_LATTICE or position[0] < 0 or position[-1] >= n:
        raise GranuleError(
            url,
            f"it lies on another grid: its {name} runs from {centers[:1]} to {centers[-1:]} in "
            f"{centers.size} steps; expected centres of the EASE-Grid 2.0 M09 in metres, "
            f"{size:.3f} m apart",
        )
    return slice(int(position[0]), int(position[-1]) + 1)


def _check_index(file: h5py.File, name: str, expected: slice, url: str) -> None:
    """Check both ends of cell_row or cell_column, where the file has it."""
    if name in file:
        index = file[name]
        found = slice(int(index[0, 0]), int(index[-1, -1]) + 1)
        if found != expected:
            raise GranuleError(
                url,
                f"its {name} runs from {found.start} to {found.stop - 1}, but by its x and y it "
                f"should run from {expected.start} to {expected.stop - 1}",
            )


def _overlap(
    rows: slice, columns: slice, wanted_rows: slice, wanted_columns: slice, url: str
) -> _Overlap:
    """The cells that a granule shares with a window."""
    top, bottom = max(rows.start, wanted_rows.start), min(rows.stop, wanted_rows.stop)
    left, right = max(columns.start, wanted_columns.start), min(columns.stop, wanted_columns.stop)
    if top >= bottom or left >= right:
        raise GranuleError(
            url,
            f"it holds rows {rows.start} to {rows.stop - 1} and columns {columns.start} to "
            f"{columns.stop - 1} of the grid, nothing of rows {wanted_rows.start} to "
            f"{wanted_rows.stop - 1} and columns {wanted_columns.start} to "
            f"{wanted_columns.stop - 1}",
        )
    return _Overlap(
        rows,
        columns,
        (
            slice(top - rows.start, bottom - rows.start),
            slice(left - columns.start, right - columns.start),
        ),
        (
            slice(top - wanted_rows.start, bottom - wanted_rows.start),
            slice(left - wanted_columns.start, right - wanted_columns.start),
        ),
    )
