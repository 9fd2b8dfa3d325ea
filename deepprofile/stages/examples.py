"""Example profiles for the report: a dry and a wet day in a few validation cells."""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.figures.plots import ExampleProfile
from deepprofile.profile import MAX_DEPTH, Layer, layer_matrix
from deepprofile.stages.compare import chosen_cells
from deepprofile.stages.context import Context
from deepprofile.stages.stations import open_ground_truth
from deepprofile.store import layers_of, open_cube, read_cells
from deepprofile.synthetic import read_truth

N_CELLS = 4
QUANTILES = {"dry": 0.1, "wet": 0.9}
"""Quantiles of the profile's 0-100 cm mean that pick the days."""


def example_profiles(context: Context) -> list[ExampleProfile]:
    """Profiles with the products' layers, the stations' points and, where known, the truth."""
    cells = _cells(chosen_cells(context.paths.samples))
    where = cells["row"].to_numpy(), cells["column"].to_numpy()
    cube = open_cube(context.paths.coefficients, chunks=None)
    coefficients = read_cells(cube, "coefficients", *where)
    time = cube["time"].values
    layers, moisture = _products(context, where, time)
    points = _Points(context)
    examples = []
    for i, (row, column) in enumerate(zip(*where, strict=True)):
        for name, day in _days(coefficients[i]).items():
            title = f"{str(time[day])[:10]} ({name})\nrow {row}, column {column}"
            examples.append(
                ExampleProfile(
                    title,
                    coefficients[i, day],
                    layers,
                    moisture[i, day],
                    *points.of_stations(row, column, time[day]),
                    *points.of_truth(row, column, time[day]),
                )
            )
    return examples


def _cells(chosen: pd.DataFrame) -> pd.DataFrame:
    """Validation cells, those with most stations first, spread over what there is."""
    rank = chosen["cell_class"].map({"core": 0, "extra": 1, "other": 2})
    held = chosen[chosen["split"] == "validation"]
    held = held.assign(rank=rank).sort_values("rank", kind="stable")
    best: pd.DataFrame = held[held["rank"] == held["rank"].min()]
    spread = np.unique(np.linspace(0, len(best) - 1, N_CELLS).round().astype(int))
    return best.iloc[spread]


def _days(coefficients: NDArray[np.float32]) -> dict[str, int]:
    column = coefficients @ layer_matrix([(0.0, MAX_DEPTH)], coefficients.shape[1])[:, 0]
    known = np.flatnonzero(np.isfinite(column))
    order = known[np.argsort(column[known])]
    if not order.size:
        return {}
    return {name: int(order[int(q * (order.size - 1))]) for name, q in QUANTILES.items()}


def _products(
    context: Context,
    where: tuple[NDArray[np.int64], NDArray[np.int64]],
    time: NDArray[np.datetime64],
) -> tuple[list[Layer], NDArray[np.float32]]:
    layers: list[Layer] = []
    parts = []
    for name in context.recipe.products:
        cube = open_cube(context.paths.product(name), chunks=None)
        layers += layers_of(cube)
        values = read_cells(cube, "soil_moisture", *where)
        labelled = xr.DataArray(
            values, dims=("cell", "time", "layer"), coords={"time": cube["time"]}
        )
        parts.append(labelled.reindex(time=time).values)
    return layers, np.concatenate(parts, axis=2)


class _Points:
    """Readings of stations and the synthetic truth in one cell on one day."""

    def __init__(self, context: Context) -> None:
        recipe, paths = context.recipe, context.paths
        self._stations = open_ground_truth(paths.ground_truth) if recipe.stations else None
        self._truth = read_truth(paths.truth) if recipe.synthetic else None

    def of_stations(
        self, row: int, column: int, day: np.datetime64
    ) -> tuple[list[float], list[float]]:
        """Depths and values of the readings at a depth or of the surface layer's middle."""
        if self._stations is None or day not in self._stations["time"].values:
            return [], []
        found = self._stations.sel(time=day)
        here = (found["row"] == row) & (found["column"] == column)
        here &= (found["bottom"] - found["top"] <= 0.051) & np.isfinite(found["soil_moisture"])
        found = found.isel(series=np.flatnonzero(here.values))
        depth = (found["top"] + found["bottom"]) / 2
        return depth.values.tolist(), found["soil_moisture"].values.tolist()

    def of_truth(
        self, row: int, column: int, day: np.datetime64
    ) -> tuple[list[float], list[float]]:
        """Depths of the middles of the truth's soil layers, and its values."""
        if self._truth is None:
            return [], []
        here = (self._truth["row"].values == row) & (self._truth["column"].values == column)
        found = self._truth.isel(cell=np.flatnonzero(here)[0]).sel(time=day)
        edges = found["interface"].values
        return ((edges[1:] + edges[:-1]) / 2).tolist(), found["soil_moisture"].values.tolist()
