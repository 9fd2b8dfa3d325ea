"""Jobs of stage evaluate: every estimate against every reference in the cells of one tile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.assess import Settings, assess
from deepprofile.evaluation.assessment import Assessment
from deepprofile.evaluation.estimates.base import (
    Estimate,
    LayerEstimate,
    MeanEstimate,
    ProfileEstimate,
)
from deepprofile.evaluation.reference.depths import GROUP_NAMES
from deepprofile.evaluation.reference.series import label_cells, truth_reference
from deepprofile.stages.stations import open_ground_truth
from deepprofile.store import layers_of, open_cube, read_cells
from deepprofile.store.layout import TILE_COLUMNS, TILE_ROWS, Tile
from deepprofile.synthetic import read_truth

STATIONS, TRUTH = "stations", "truth"
DEEPPROFILE, MEAN, TC_MEAN = "deepprofile", "mean", "tc_mean"


@dataclass(frozen=True)
class CompareJob:
    """One tile.

    Attributes:
        tile: the tile.
        cubes: URL of each product's cube, by product.
        triplet: the products that were collocated; their means are baselines.
        coefficients: URL of the cube of profiles.
        collocation: URL of the cube of weights.
        samples: URL of the cube that knows class and split of the chosen cells.
        ground_truth: URL of the stations' ground truth; empty for none.
        truth: path of a synthetic truth; empty for none.
        settings: how estimates are assessed.
    """

    tile: Tile
    cubes: Mapping[str, str]
    triplet: tuple[str, ...]
    coefficients: str
    collocation: str
    samples: str
    ground_truth: str
    truth: str
    settings: Settings

    @property
    def key(self) -> str:
        """Name in messages."""
        return f"tile {self.tile.row} {self.tile.column}"


def compare(job: CompareJob) -> Assessment:
    """All estimates against all references of a tile; empty where it has none."""
    cells = chosen_cells(job.samples)
    found = {
        name: with_collocation(label_cells(reference, cells), job.collocation)
        for name, reference in read_references(
            job.ground_truth, job.truth, lambda places: _in_tile(places, job.tile)
        ).items()
        if reference.sizes["series"]
    }
    if not found:
        return Assessment(pd.DataFrame())
    places = np.concatenate([np.stack([r["row"], r["column"]], 1) for r in found.values()])
    rows, columns = np.unique(places, axis=0).T
    return assess(estimates(job, rows, columns), found, job.settings)


def estimates(
    job: CompareJob, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> list[Estimate]:
    """The profile, every product, their plain mean and their TC-weighted mean in some cells."""
    products = {name: _product(name, url, rows, columns) for name, url in job.cubes.items()}
    members = [products[name] for name in job.triplet]
    weights = read_cells(job.collocation, "weight", rows, columns)
    cube = open_cube(job.coefficients, chunks=None)
    coefficients = read_cells(cube, "coefficients", rows, columns)
    return [
        ProfileEstimate(DEEPPROFILE, rows, columns, cube["time"].values, coefficients),
        *products.values(),
        MeanEstimate.of(MEAN, members),
        MeanEstimate.of(TC_MEAN, members, weights),
    ]


def with_collocation(reference: xr.Dataset, collocation: str) -> xr.Dataset:
    """The reference with the status of triple collocation of each series' cell.

    Args:
        reference: see :mod:`deepprofile.evaluation.reference.series`.
        collocation: URL of the cube of weights.

    Returns:
        With the coordinate ``collocation``, one of the meanings of the cube's flag; empty where
        the cell has none.
    """
    flag = open_cube(collocation, chunks=None)["flag"]
    meanings = str(flag.attrs["flag_meanings"]).split()
    known = dict(zip(np.atleast_1d(flag.attrs["flag_values"]).tolist(), meanings, strict=True))
    rows, columns = reference["row"].to_numpy(), reference["column"].to_numpy()
    values = read_cells(collocation, "flag", rows, columns)
    status = [known.get(int(value), "") for value in values]
    return reference.assign_coords(collocation=("series", np.array(status, dtype=str)))


def chosen_cells(samples: str) -> pd.DataFrame:
    """Row, column, class and split of the chosen cells."""
    cube = open_cube(samples, chunks=None)
    names = ["row", "column", "cell_class", "split"]
    return pd.DataFrame({name: cube[name].values for name in names})


def _product(
    name: str, url: str, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> LayerEstimate:
    cube = open_cube(url, chunks=None)
    values = read_cells(cube, "soil_moisture", rows, columns)
    bounds = [(layer.top, layer.bottom) for layer in layers_of(cube)]
    return LayerEstimate(name, rows, columns, cube["time"].values, bounds, values)


def read_references(
    ground_truth: str, truth: str, chosen: Callable[[xr.Dataset], NDArray[np.intp]]
) -> dict[str, xr.Dataset]:
    """References of some cells, see `deepprofile.evaluation.reference.series`, by name.

    Args:
        ground_truth: URL of the stations' ground truth; empty for none.
        truth: path of a synthetic truth; empty for none.
        chosen: which series, or cells of the truth, are read: positions, found by ``row`` and
            ``column`` of the dataset that it is given.
    """
    found = {}
    if ground_truth:
        stations = open_ground_truth(ground_truth)
        found[STATIONS] = stations.isel(series=chosen(stations)).load()
    if truth:
        known = read_truth(truth)
        known = known.isel(cell=chosen(known))
        found[TRUTH] = truth_reference(
            known["soil_moisture"].values,
            known["interface"].values,
            known["time"].values,
            known["row"].values,
            known["column"].values,
        )
    return found


def _in_tile(dataset: xr.Dataset, tile: Tile) -> NDArray[np.intp]:
    here = dataset["row"].values // TILE_ROWS == tile.row
    here &= dataset["column"].values // TILE_COLUMNS == tile.column
    return np.flatnonzero(here)


def count_series(ground_truth: str, truth: str) -> int:
    """Series of both references in all tiles; an empty URL stands for none."""
    stations = open_ground_truth(ground_truth).sizes["series"] if ground_truth else 0
    cells = read_truth(truth).sizes["cell"] if truth else 0
    return int(stations + cells * len(GROUP_NAMES))


def reference_tiles(ground_truth: str, truth: str) -> set[Tile]:
    """Tiles with at least one cell of a reference; an empty URL stands for none."""
    references = [open_ground_truth(ground_truth)] if ground_truth else []
    references += [read_truth(truth)] if truth else []
    places = [np.stack([r["row"].values, r["column"].values], axis=1) for r in references]
    tiles = np.unique(np.concatenate(places) // (TILE_ROWS, TILE_COLUMNS), axis=0)
    return {Tile(int(row), int(column)) for row, column in tiles}
