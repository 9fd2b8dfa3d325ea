"""What templates are made of: arrays and coordinates that several kinds of cubes share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepprofile import grid
from deepprofile.profile import Layer
from deepprofile.store.layout import BLOCK_DAYS, TILE_COLUMNS, TILE_ROWS, Region
from deepprofile.store.template import TIME_CHUNK, ArraySpec, Coordinate

SOIL_MOISTURE = {
    "units": "m3 m-3",
    "long_name": "volumetric soil moisture, mean of a layer",
    "standard_name": "volume_fraction_of_condensed_water_in_soil",
    "cell_methods": "time: mean layer: mean",
}
_N_STEPS = {"units": "1", "long_name": "number of time steps in the daily mean"}


def gridded(
    name: str,
    leading: Mapping[str, int],
    region: Region,
    attributes: Mapping[str, Any],
    *,
    dtype: str = "float32",
    fill_value: float | None = None,
    keep_bits: int | None = None,
) -> ArraySpec:
    """An array on (leading dimensions, y, x): a shard is one block of one tile, all variables."""
    steps = [BLOCK_DAYS if dim == "time" else size for dim, size in leading.items()]
    inner = [BLOCK_DAYS if dim == "time" else 1 for dim in leading]
    if fill_value is None:
        fill_value = np.nan if dtype == "float32" else 0
    return ArraySpec(
        name=name,
        dims=(*leading, "y", "x"),
        shape=(*leading.values(), *region.shape),
        chunks=(*steps, TILE_ROWS, TILE_COLUMNS),
        inner=(*inner, TILE_ROWS, TILE_COLUMNS),
        dtype=dtype,
        fill_value=fill_value,
        attributes={"grid_mapping": "spatial_ref", **attributes},
        keep_bits=keep_bits,
    )


def moisture_arrays(
    region: Region, layers: Sequence[Layer], keep_bits: int | None
) -> tuple[ArraySpec, ArraySpec]:
    """A product's daily soil moisture in its layers, and the steps that each day has."""
    sizes = {"time": 0, "layer": len(layers)}
    return (
        gridded("soil_moisture", sizes, region, SOIL_MOISTURE, keep_bits=keep_bits),
        gridded("n_steps", {"time": 0}, region, _N_STEPS, dtype="uint8"),
    )


def by_cell(name: str, sizes: Mapping[str, int], attributes: Mapping[str, Any]) -> ArraySpec:
    """An array on (cell, ...): a chunk is one cell, all variables, 1024 days."""
    steps = {**sizes, "cell": 1, "time": TIME_CHUNK}
    return ArraySpec(
        name=name,
        dims=tuple(sizes),
        shape=tuple(sizes.values()),
        chunks=tuple(steps[dim] for dim in sizes),
        inner=None,
        dtype="float32",
        fill_value=np.nan,
        attributes=attributes,
    )


def named(dim: str, units_of: Mapping[str, str], units: str = "units") -> tuple[Coordinate, ...]:
    """Names along ``dim``, and their units under the name ``units``."""
    return (
        Coordinate(dim, (dim,), np.array(list(units_of), dtype=str)),
        Coordinate(units, (dim,), np.array(list(units_of.values()), dtype=str)),
    )


def layer_coordinates(layers: Sequence[Layer]) -> tuple[Coordinate, ...]:
    """Product and boundaries along ``layer``."""
    depth = {"units": "m", "positive": "down"}
    return (
        Coordinate("product", ("layer",), np.array([layer.product for layer in layers], dtype=str)),
        Coordinate(
            "top",
            ("layer",),
            np.array([layer.top for layer in layers]),
            {"long_name": "upper boundary of the layer", **depth},
        ),
        Coordinate(
            "bottom",
            ("layer",),
            np.array([layer.bottom for layer in layers]),
            {"long_name": "lower boundary of the layer", **depth},
        ),
    )


def grid_coordinates(region: Region) -> tuple[Coordinate, ...]:
    """The projection's axes with their bounds, latitude, longitude and the grid mapping."""
    ease2 = grid.ease2_grid().isel(y=region.rows, x=region.columns)
    x = _axis("x", ease2["x"].values, "projection_x_coordinate", "X")
    y = _axis("y", ease2["y"].values, "projection_y_coordinate", "Y")
    plain = [
        Coordinate(name, tuple(map(str, ease2[name].dims)), ease2[name].values, ease2[name].attrs)
        for name in ("latitude", "longitude", "spatial_ref")
    ]
    return (*y, *x, *plain)


def _axis(
    name: str, centres: NDArray[np.float64], standard_name: str, axis: str
) -> tuple[Coordinate, Coordinate]:
    """Cell centres along one axis of the projection in metres, and the cells' boundaries."""
    step = grid.CELL_SIZE if name == "x" else -grid.CELL_SIZE
    boundaries = np.stack([centres - step / 2, centres + step / 2], axis=-1)
    attributes = {
        "units": "m",
        "standard_name": standard_name,
        "axis": axis,
        "bounds": f"{name}_bounds",
    }
    return (
        Coordinate(name, (name,), centres, attributes),
        Coordinate(f"{name}_bounds", (name, "bound"), boundaries),
    )


def cell_coordinates(cells: Mapping[str, ArrayLike]) -> tuple[Coordinate, ...]:
    """Place, class and split along ``cell``."""
    columns = {name: np.asarray(cells[name]) for name in ("row", "column", "cell_class", "split")}
    row, column = columns["row"].astype(np.int32), columns["column"].astype(np.int32)
    texts = {
        "cell_class": "core, extra or other: by the number of stations in the cell",
        "split": "train, candidate or validation",
    }
    return (
        Coordinate("row", ("cell",), row, {"long_name": "row of the global grid"}),
        Coordinate("column", ("cell",), column, {"long_name": "column of the global grid"}),
        Coordinate(
            "latitude",
            ("cell",),
            grid.latitudes()[row],
            {"units": "degrees_north", "standard_name": "latitude"},
        ),
        Coordinate(
            "longitude",
            ("cell",),
            grid.longitudes()[column],
            {"units": "degrees_east", "standard_name": "longitude"},
        ),
        *(
            Coordinate(name, ("cell",), columns[name].astype(str), {"long_name": text})
            for name, text in texts.items()
        ),
    )
