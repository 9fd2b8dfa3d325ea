"""The kinds of cubes and their templates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepprofile.profile import N_COEFFICIENTS, Layer
from deepprofile.store.layout import Region
from deepprofile.store.parts import (
    SOIL_MOISTURE,
    by_cell,
    cell_coordinates,
    grid_coordinates,
    gridded,
    layer_coordinates,
    moisture_arrays,
    named,
)
from deepprofile.store.template import ArraySpec, Coordinate, Template, time_coordinate

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
    forcing = gridded(
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
        arrays=(forcing, *moisture_arrays(region, layers, keep_bits)),
        coordinates=(
            time_coordinate(),
            *named("variable", variables),
            *layer_coordinates(layers),
            *grid_coordinates(region),
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
        arrays=moisture_arrays(region, layers, keep_bits),
        coordinates=(
            time_coordinate(),
            *layer_coordinates(layers),
            *grid_coordinates(region),
        ),
        region=region,
        first_block=first_block,
    )


def static_template(region: Region, features: Mapping[str, str] = FEATURES) -> Template:
    """Cube of the land mask and of the static features (name and units of each, in order)."""
    land = gridded(
        "land",
        {},
        region,
        {"units": "1", "long_name": "land mask", "standard_name": "land_binary_mask"},
        dtype="uint8",
    )
    auxiliary = gridded(
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
        coordinates=(*named("feature", features), *grid_coordinates(region)),
        region=region,
    )


def collocation_template(
    region: Region,
    products: Sequence[str],
    *,
    flag_attributes: Mapping[str, Any],
    bootstrap: bool = False,
    extended: bool = False,
) -> Template:
    """Cube of triple collocation.

    Args:
        region: what the cube covers.
        products: names of the three products, in order.
        flag_attributes: CF attributes of ``flag`` (``flag_values`` or ``flag_masks``,
            ``flag_meanings``).
        bootstrap: whether the cube also holds sampling errors.
        extended: whether it also holds each product's quality against the common signal.
    """
    per_product = {
        "weight": ("weight of the product; the weights of a cell sum to 1", "1"),
        "error_variance": ("variance of the product's random error", "m6 m-6"),
    }
    if extended:
        per_product |= {
            "sensitivity": ("variance of the common signal as the product shows it", "m6 m-6"),
            "signal_to_noise": ("ratio of the variances of signal and error", "dB"),
            "r_squared": ("squared correlation of the product with the truth", "1"),
        }
    if bootstrap:
        per_product["error_variance_std"] = ("sampling error of the error variance", "m6 m-6")
        per_product["weight_std"] = ("sampling error of the weight", "1")
    sizes = {"product": len(products)}
    arrays = [
        gridded(name, sizes, region, {"units": units, "long_name": text})
        for name, (text, units) in per_product.items()
    ]
    counted = {"units": "1", "long_name": "days on which all products exist"}
    return Template(
        kind="collocation",
        title="Triple collocation of soil moisture products on the 9 km EASE-Grid 2.0",
        arrays=(
            *arrays,
            gridded("n_samples", {}, region, counted, dtype="int32"),
            _flag({}, region, flag_attributes),
        ),
        coordinates=(
            Coordinate("product", ("product",), np.array(products, dtype=str)),
            *grid_coordinates(region),
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
    coefficients = gridded(
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
            *grid_coordinates(region),
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
    coordinates = cell_coordinates(cells)
    n_cells = coordinates[0].values.size
    layer_axis = {"layer": len(layers)}
    in_units_of = "{}, in the units of the coordinate '{}'"
    return Template(
        kind="samples",
        title="Series of the chosen cells on the 9 km EASE-Grid 2.0",
        arrays=(
            by_cell(
                "series",
                {"cell": n_cells, "variable": len(variables), "time": 0},
                {"long_name": in_units_of.format("inputs of the network", "units")},
            ),
            by_cell(
                "auxiliary",
                {"cell": n_cells, "feature": len(features)},
                {"long_name": in_units_of.format("static features", "feature_units")},
            ),
            by_cell("target", {"cell": n_cells, **layer_axis, "time": 0}, SOIL_MOISTURE),
            by_cell(
                "weight",
                {"cell": n_cells, **layer_axis},
                {"units": "m", "long_name": "layer thickness times the weight of its product"},
            ),
        ),
        coordinates=(
            *coordinates,
            time_coordinate(),
            *named("variable", variables),
            *named("feature", features, units="feature_units"),
            *layer_coordinates(layers),
        ),
        first_block=first_block,
    )


def _flag(leading: Mapping[str, int], region: Region, attributes: Mapping[str, Any]) -> ArraySpec:
    """A quality flag on (leading dimensions, y, x)."""
    comment = f"{NOT_PROCESSED} means not processed: no land, or no job has written yet"
    if "comment" in attributes:
        comment = f"{attributes['comment']}; {comment}"
    text = {"long_name": "quality flag", "standard_name": "quality_flag"}
    everything = {**text, **attributes, "comment": comment}
    return gridded("flag", leading, region, everything, dtype="uint8", fill_value=NOT_PROCESSED)
