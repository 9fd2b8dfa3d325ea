"""The kinds of cubes and their templates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepprofile import grid
from deepprofile.profile import N_COEFFICIENTS, Layer
from deepprofile.store.layout import BLOCK_DAYS, TILE_COLUMNS, TILE_ROWS, Region
from deepprofile.store.template import TIME_CHUNK, ArraySpec, Coordinate, Template, time_coordinate

MOISTURE_BITS = 12
"""Mantissa bits kept of soil moisture and forcing: a relative error of at most 1.2e-4."""
COEFFICIENT_BITS = 16
"""Mantissa bits kept of coefficients, whose terms partly cancel in the profile."""
NOT_PROCESSED = 255
"""Value of a flag where no job has written."""
FEATURES = {
    "elevation": "m",
    "slope": "degree",
    "sin_aspect": "1",
    "cos_aspect": "1",
    "latitude": "degrees_north",
    "longitude": "degrees_east",
}
"""Static auxiliary features and their units."""

_SOIL_MOISTURE = {
    "units": "m3 m-3",
    "long_name": "volumetric soil moisture, mean of a layer",
    "standard_name": "volume_fraction_of_condensed_water_in_soil",
    "cell_methods": "time: mean layer: mean",
}
_N_STEPS = {"units": "1", "long_name": "number of time steps in the daily mean"}


def smap_l4_template(
    region: Region,
    variables: Mapping[str, str],
    layers: Sequence[Layer],
    *,
    first_block: int = 0,
    keep_bits: int | None = MOISTURE_BITS,
) -> Template:
    """Cube of SMAP L4: the inputs of the network and the product's own layers, daily.

    Args:
        region: what the cube covers.
        variables: name and units of each input variable, in order.
        layers: the layers of ``soil_moisture``.
        first_block: block with which the time axis starts.
        keep_bits: bits of mantissa kept; None keeps all.
    """
    forcing = _gridded(
        "forcing",
        {"time": 0, "variable": len(variables)},
        region,
        {
            "long_name": "inputs of the network, in the units of the coordinate 'units'",
            "cell_methods": "time: mean",
        },
        keep_bits=keep_bits,
    )
    return Template(
        kind="smap_l4",
        title="SMAP L4 daily inputs and soil moisture on the 9 km EASE-Grid 2.0",
        arrays=(forcing, *_moisture_arrays(region, layers, keep_bits)),
        coordinates=(
            time_coordinate(),
            *_named("variable", variables),
            *_layer_coordinates(layers),
            *_grid_coordinates(region),
        ),
        region=region,
        first_block=first_block,
    )


def soil_moisture_template(
    product: str,
    region: Region,
    layers: Sequence[Layer],
    *,
    first_block: int = 0,
    keep_bits: int | None = MOISTURE_BITS,
) -> Template:
    """Cube of the daily soil moisture of one product in its layers; its kind is the product."""
    return Template(
        kind=product,
        title=f"{product} daily soil moisture on the 9 km EASE-Grid 2.0",
        arrays=_moisture_arrays(region, layers, keep_bits),
        coordinates=(
            time_coordinate(),
            *_layer_coordinates(layers),
            *_grid_coordinates(region),
        ),
        region=region,
        first_block=first_block,
    )


def static_template(region: Region, features: Mapping[str, str] = FEATURES) -> Template:
    """Cube of the land mask and of the static features (name and units of each, in order)."""
    land = _gridded(
        "land",
        {},
        region,
        {"units": "1", "long_name": "land mask", "standard_name": "land_binary_mask"},
        dtype="uint8",
    )
    auxiliary = _gridded(
        "auxiliary",
        {"feature": len(features)},
        region,
        {
            "long_name": "static features, in the units of the coordinate 'units'",
        },
    )
    return Template(
        kind="static",
        title="Land mask and static features on the 9 km EASE-Grid 2.0",
        arrays=(land, auxiliary),
        coordinates=(*_named("feature", features), *_grid_coordinates(region)),
        region=region,
    )


def collocation_template(
    region: Region,
    products: Sequence[str],
    *,
    flag_attributes: Mapping[str, Any],
    bootstrap: bool = False,
) -> Template:
    """Cube of triple collocation.

    Args:
        region: what the cube covers.
        products: names of the three products, in order.
        flag_attributes: CF attributes of ``flag`` (``flag_values`` or ``flag_masks``,
            ``flag_meanings``).
        bootstrap: whether the cube also holds sampling errors.
    """
    per_product = {
        "weight": ("weight of the product; the weights of a cell sum to 1", "1"),
        "error_variance": ("variance of the product's random error", "m6 m-6"),
        "sensitivity": ("sensitivity to the common signal", "1"),
        "signal_to_noise": ("ratio of the variances of signal and error", "1"),
    }
    if bootstrap:
        per_product["error_variance_std"] = ("sampling error of the error variance", "m6 m-6")
        per_product["weight_std"] = ("sampling error of the weight", "1")
    sizes = {"product": len(products)}
    arrays = [
        _gridded(name, sizes, region, {"units": units, "long_name": text})
        for name, (text, units) in per_product.items()
    ]
    counted = {"units": "1", "long_name": "days on which all products exist"}
    return Template(
        kind="collocation",
        title="Triple collocation of soil moisture products on the 9 km EASE-Grid 2.0",
        arrays=(
            *arrays,
            _gridded("n_samples", {}, region, counted, dtype="int32"),
            _flag({}, region, flag_attributes),
        ),
        coordinates=(
            Coordinate("product", ("product",), np.array(products, dtype=str)),
            *_grid_coordinates(region),
        ),
        region=region,
    )


def coefficients_template(
    region: Region,
    *,
    flag_attributes: Mapping[str, Any],
    n_coefficients: int = N_COEFFICIENTS,
    first_block: int = 0,
    keep_bits: int | None = COEFFICIENT_BITS,
) -> Template:
    """Cube of the daily profiles: coefficients of θ(z) = Σ β_i z^i, z in metres."""
    coefficients = _gridded(
        "coefficients",
        {"time": 0, "degree": n_coefficients},
        region,
        {
            "long_name": "coefficients of the soil moisture profile in powers of depth in metres",
            "units": "m3 m-3",
            "comment": "soil moisture at depth z is the sum of coefficient i times z^i; "
            "the coefficient of degree i is per metre to the power i",
        },
        keep_bits=keep_bits,
    )
    return Template(
        kind="coefficients",
        title="DeepProfile daily soil moisture profiles on the 9 km EASE-Grid 2.0",
        arrays=(coefficients, _flag({"time": 0}, region, flag_attributes)),
        coordinates=(
            time_coordinate(),
            Coordinate(
                "degree",
                ("degree",),
                np.arange(n_coefficients, dtype=np.int32),
                {"long_name": "power of depth", "units": "1"},
            ),
            *_grid_coordinates(region),
        ),
        region=region,
        first_block=first_block,
    )


def samples_template(
    cells: Mapping[str, ArrayLike],
    variables: Mapping[str, str],
    layers: Sequence[Layer],
    features: Mapping[str, str] = FEATURES,
    *,
    first_block: int = 0,
) -> Template:
    """Cube of the series of the chosen cells, for training and evaluation.

    Cells of one tile should follow one another, since one job writes the cells of a tile.

    Args:
        cells: columns ``row``, ``column``, ``cell_class`` and ``split``, each of shape (cells,).
        variables: name and units of each input variable, in order.
        layers: the target layers.
        features: name and units of each static feature, in order.
        first_block: block with which the time axis starts.
    """
    coordinates = _cell_coordinates(cells)
    n_cells = coordinates[0].values.size
    layer_axis = {"layer": len(layers)}
    in_units_of = "{}, in the units of the coordinate '{}'"
    return Template(
        kind="samples",
        title="Series of the chosen cells on the 9 km EASE-Grid 2.0",
        arrays=(
            _by_cell(
                "series",
                {"cell": n_cells, "variable": len(variables), "time": 0},
                {"long_name": in_units_of.format("inputs of the network", "units")},
            ),
            _by_cell(
                "auxiliary",
                {"cell": n_cells, "feature": len(features)},
                {"long_name": in_units_of.format("static features", "feature_units")},
            ),
            _by_cell("target", {"cell": n_cells, **layer_axis, "time": 0}, _SOIL_MOISTURE),
            _by_cell(
                "weight",
                {"cell": n_cells, **layer_axis},
                {"units": "m", "long_name": "layer thickness times the weight of its product"},
            ),
        ),
        coordinates=(
            *coordinates,
            time_coordinate(),
            *_named("variable", variables),
            *_named("feature", features, units="feature_units"),
            *_layer_coordinates(layers),
        ),
        first_block=first_block,
    )


def _gridded(
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


def _moisture_arrays(
    region: Region, layers: Sequence[Layer], keep_bits: int | None
) -> tuple[ArraySpec, ArraySpec]:
    sizes = {"time": 0, "layer": len(layers)}
    return (
        _gridded("soil_moisture", sizes, region, _SOIL_MOISTURE, keep_bits=keep_bits),
        _gridded("n_steps", {"time": 0}, region, _N_STEPS, dtype="uint8"),
    )


def _flag(leading: Mapping[str, int], region: Region, attributes: Mapping[str, Any]) -> ArraySpec:
    text = {"long_name": "quality flag", "standard_name": "quality_flag"}
    return _gridded(
        "flag", leading, region, {**text, **attributes}, dtype="uint8", fill_value=NOT_PROCESSED
    )


def _by_cell(name: str, sizes: Mapping[str, int], attributes: Mapping[str, Any]) -> ArraySpec:
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


def _named(dim: str, units_of: Mapping[str, str], units: str = "units") -> tuple[Coordinate, ...]:
    return (
        Coordinate(dim, (dim,), np.array(list(units_of), dtype=str)),
        Coordinate(units, (dim,), np.array(list(units_of.values()), dtype=str)),
    )


def _layer_coordinates(layers: Sequence[Layer]) -> tuple[Coordinate, ...]:
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


def _grid_coordinates(region: Region) -> tuple[Coordinate, ...]:
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


def _cell_coordinates(cells: Mapping[str, ArrayLike]) -> tuple[Coordinate, ...]:
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
