"""References: series that estimates are compared with, and how a known truth becomes one.

A *reference* is a dataset with the dimensions ``series`` and ``time``:

- ``soil_moisture(series, time)``: m³ m⁻³, float32, NaN where unknown;
- ``n_stations(series, time)``: stations behind a day's value (0 for a known truth);
- along ``series``: ``row`` and ``column`` of the cell, ``group`` (a name of
  :data:`~.depths.GROUP_NAMES`), ``top`` and ``bottom`` in metres over which
  estimates are compared (equal: at that depth), ``compared`` (the same in words),
  ``cell_class``, ``split``, ``n_working`` and ``network`` (names of the networks whose stations
  the cell holds, joined by ", "), ``land_cover``, ``climate`` and ``texture`` (empty where
  unknown), ``n_sensors`` (sensors behind the series, 0 for a known truth) and ``observed_share``
  (of the 0-100 cm column, NaN for every other group and for a known truth).
"""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from deepprofile.evaluation.reference import depths

CELL = ["row", "column"]
Values = NDArray[np.float32]
Counts = NDArray[np.uint16]
_COORDINATES = {
    "row": np.int64,
    "column": np.int64,
    "group": str,
    "top": np.float64,
    "bottom": np.float64,
    "cell_class": str,
    "split": str,
    "n_working": np.int64,
    "network": str,
    "land_cover": str,
    "climate": str,
    "texture": str,
    "compared": str,
    "n_sensors": np.int64,
    "observed_share": np.float64,
}
_CELL_LABELS = [
    "cell_class",
    "split",
    "n_working",
    "network",
    "land_cover",
    "climate",
    "texture",
]
_UNKNOWN = {
    **dict.fromkeys(_CELL_LABELS, ""),
    "n_working": 0,
    "n_sensors": 0,
    "observed_share": np.nan,
}
_UNITS = {"top": "m", "bottom": "m"}


def build_reference(
    time: NDArray[np.datetime64], table: pd.DataFrame, values: Values, n_stations: Counts
) -> xr.Dataset:
    """A reference from its parts.

    Args:
        time: days, shape (time,).
        table: a row per series with ``row``, ``column``, ``group``, ``top``, ``bottom`` and, where
            known, ``n_sensors``, ``observed_share``, ``cell_class``, ``split``, ``n_working``,
            ``network``, ``land_cover``, ``climate`` and ``texture``.
        values: shape (series, time), m³ m⁻³.
        n_stations: stations behind each value, same shape.
    """
    bounds = zip(table["top"], table["bottom"], strict=True)
    table = table.assign(compared=[depths.compared_text(top, bottom) for top, bottom in bounds])
    for name in _UNKNOWN.keys() - set(table.columns):
        table = table.assign(**{name: _UNKNOWN[name]})  # type: ignore[arg-type]
    coordinates = {
        name: ("series", table[name].to_numpy(dtype=kind), {"units": _UNITS.get(name, "1")})
        for name, kind in _COORDINATES.items()
    }
    return xr.Dataset(
        {
            "soil_moisture": (("series", "time"), values, {"units": "m3 m-3"}),
            "n_stations": (("series", "time"), n_stations, {"units": "1"}),
        },
        coords={**coordinates, "time": np.asarray(time, dtype="datetime64[ns]")},
    )


def truth_reference(
    soil_moisture: NDArray[np.floating],
    interfaces: ArrayLike,
    time: NDArray[np.datetime64],
    row: ArrayLike,
    column: ArrayLike,
) -> xr.Dataset:
    """Reference series of a soil column that is known at every depth.

    The value at a depth is interpolated linearly between the middles of the layers (the mean of
    the first or last layer beyond them); a group of several depths is represented by its
    ``typical`` one.

    Args:
        soil_moisture: layer means, shape (cell, layer, time), m³ m⁻³.
        interfaces: boundaries of the layers in metres from 0 to 1, shape (layers + 1,).
        time: days, shape (time,).
        row: rows of the cells, shape (cell,).
        column: columns of the cells, shape (cell,).

    Returns:
        A reference with one series per cell and group.

    Raises:
        ValueError: if the interfaces don't increase from 0 to 1 m or don't fit the layers.
    """
    edges = _check_interfaces(interfaces, soil_moisture.shape[1])
    bounds = _truth_bounds()
    weights = np.stack([_truth_weights(edges, top, bottom) for _, top, bottom in bounds])
    values = np.einsum("gl,clt->cgt", weights.astype(np.float32), soil_moisture)
    n_cells = values.shape[0]
    table = pd.DataFrame(bounds * n_cells, columns=["group", "top", "bottom"])
    table["row"] = np.repeat(np.asarray(row), len(bounds))
    table["column"] = np.repeat(np.asarray(column), len(bounds))
    values = values.reshape(n_cells * len(bounds), -1).astype(np.float32)
    return build_reference(time, table, values, np.zeros(values.shape, np.uint16))


def cell_table(reference: xr.Dataset) -> pd.DataFrame:
    """One row per cell: row, column, class, split, networks and static classes."""
    names = [*CELL, *_CELL_LABELS]
    table = pd.DataFrame({name: reference[name].to_numpy() for name in names})
    return table.drop_duplicates(CELL, ignore_index=True)


def label_cells(reference: xr.Dataset, cells: pd.DataFrame) -> xr.Dataset:
    """The reference with labels taken from a table of cells.

    Args:
        reference: a reference.
        cells: a row per cell with ``row``, ``column`` and some of ``cell_class``, ``split``,
            ``land_cover``, ``climate`` and ``texture``; cells that it lacks, or of which a label
            is missing or empty, keep theirs.

    Raises:
        ValueError: if a cell appears twice in the table.
    """
    if cells.duplicated(CELL).any():
        raise ValueError("the table of cells names a cell twice: expected one row per cell")
    keys = pd.DataFrame({name: reference[name].to_numpy() for name in CELL})
    for label in ("cell_class", "split", "land_cover", "climate", "texture"):
        if label not in cells:
            continue
        found = keys.merge(cells[[*CELL, label]], on=CELL, how="left")[label].replace("", None)
        old = pd.Series(reference[label].to_numpy(), dtype=object)
        new = found.astype(object).where(found.notna(), old).to_numpy(dtype=str)
        reference = reference.assign_coords({label: ("series", new)})
    return reference


def _truth_bounds() -> list[tuple[str, float, float]]:
    bounds = [
        (group.name, *depths.compared_bounds(group.name, group.typical, group.typical))
        for group in depths.DEPTH_GROUPS
    ]
    deep = (depths.DEEP_GROUP, *depths.DEEP_LAYER)
    return [*bounds, deep, (depths.COLUMN_GROUP, 0.0, depths.COLUMN_BOTTOM)]


def _check_interfaces(interfaces: ArrayLike, n_layers: int) -> NDArray[np.float64]:
    edges = np.asarray(interfaces, dtype=np.float64)
    spans = edges.size == n_layers + 1 and np.allclose(edges[[0, -1]], [0.0, 1.0], atol=1e-6)
    if not spans or np.any(np.diff(edges) <= 0):
        raise ValueError(
            f"interfaces {edges.tolist()} m don't bound {n_layers} layers: expected "
            f"{n_layers + 1} depths increasing from 0 to 1 m"
        )
    return edges


def _truth_weights(edges: NDArray[np.float64], top: float, bottom: float) -> NDArray[np.float64]:
    """Weights of the layers in the mean over a layer, or in the value at a depth."""
    if top < bottom:
        return depths.overlap(edges[:-1], edges[1:], top, bottom) / (bottom - top)
    middles = (edges[1:] + edges[:-1]) / 2
    return np.array([np.interp(top, middles, unit) for unit in np.eye(middles.size)])
