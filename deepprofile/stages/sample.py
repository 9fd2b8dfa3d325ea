"""Stage sample: ground truth of the stations, choice of cells, and the series of each cell."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepprofile.collocation import Flag as CollocationFlag
from deepprofile.products import PRODUCTS
from deepprofile.profile import Layer
from deepprofile.recipe import Recipe
from deepprofile.stages.cells import select_cells
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.extent import land_of
from deepprofile.stages.publication import (
    inputs_of,
    outstanding,
    publish_stage,
    require_all,
    to_retry,
)
from deepprofile.stages.stations import prepare_ground_truth
from deepprofile.store import (
    SinglePiece,
    Template,
    Writer,
    done_jobs,
    open_cube,
    planned_head,
    read_cells,
    samples_template,
)
from deepprofile.store.kinds import NOT_PROCESSED
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS, TILE_COLUMNS, TILE_ROWS, Tile

STAGE = "sample"


@dataclass(frozen=True)
class SampleJob(SinglePiece):
    """The chosen cells of one tile.

    Attributes:
        tile: the tile.
        first: position of its first cell in the samples cube.
        rows: global rows of its cells.
        columns: global columns.
        days: first day index of the period and the one after the last, where the series end;
            what lies before the first is left out.
        cubes: URL of each target product's cube, by product, in order of the layers.
        smap_l4: URL of the cube with the forcing.
        static: URL of the cube with the auxiliary features.
        collocation: URL of the cube with the weights.
        fingerprint: of the cubes read, the cells and the settings.
    """

    tile: Tile
    first: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    days: tuple[int, int]
    cubes: Mapping[str, str]
    smap_l4: str
    static: str
    collocation: str
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return f"tile {self.tile.row} {self.tile.column}"


def run(context: Context) -> str:
    """Choose the cells and extract their series, where this is not done for these inputs."""
    url = context.paths.samples
    planned_at = planned_head(url)
    stations = prepare_ground_truth(context)
    cells = _cells(context, stations)
    jobs = outstanding(_jobs(context, cells), done_jobs(url, STAGE), to_retry(context, url, STAGE))
    if jobs:
        outcome = publish_stage(
            context,
            url,
            _template(context, cells),
            write_series,
            jobs,
            stage=STAGE,
            what="series of cells",
            planned_at=planned_at,
            n_days=context.recipe.period.days.stop,
        )
        require_all(STAGE, outcome.failed)
    counts = cells.value_counts(["cell_class", "split"]).reset_index(name="n").sort_values("split")
    return ", ".join(
        f"{line.n} {line.cell_class} cells for {line.split}" for line in counts.itertuples()
    )


def plan(recipe: Recipe) -> Plan:
    """Reads the tiles that hold chosen cells; writes the series of these."""
    n_days = recipe.period.days.stop - recipe.period.days.start
    cells = drawn_cells(recipe)
    tiles = min(land_of(recipe).tiles, cells)
    read = tiles * TILE_CELLS * n_days * _values_a_day(recipe) * 4
    written = series_bytes(recipe)
    memory = BLOCK_DAYS * TILE_CELLS * _values_a_day(recipe) * 4 + 2 * written // max(tiles, 1)
    return Plan(
        tiles,
        read,
        written,
        memory,
        "cells with stations and their archives come on top",
        {"read": read, "write": written},
    )


def drawn_cells(recipe: Recipe) -> int:
    """Cells without stations that are drawn: as many as wanted and as there are."""
    return min(recipe.sample.other_cells, land_of(recipe).cells)


def series_bytes(recipe: Recipe) -> int:
    """Raw bytes of the series of the drawn cells."""
    n_days = int(recipe.period.days.stop - recipe.period.days.start)
    return drawn_cells(recipe) * n_days * _values_a_day(recipe) * 4


def write_series(writer: Writer, job: SampleJob) -> int:
    """Write the series, features, targets and weights of a tile's cells."""
    cells = {"cell": slice(job.first, job.first + len(job.rows))}
    where = job.rows, job.columns
    series = read_cells(job.smap_l4, "forcing", *where)
    moisture = [read_cells(url, "soil_moisture", *where) for url in job.cubes.values()]
    target = np.concatenate([_fit(values, job.days) for values in moisture], axis=2)
    writer.write("series", cells, _time_last(_fit(series, job.days)))
    writer.write("auxiliary", cells, read_cells(job.static, "auxiliary", *where))
    writer.write("target", cells, _time_last(target))
    writer.write("weight", cells, _layer_weights(job))
    return len(job.rows)


def target_layers(recipe: Recipe) -> list[Layer]:
    """Layers of the products that were collocated, in the order of the products."""
    return [layer for name in recipe.collocation.products for layer in PRODUCTS[name].layers]


def _values_a_day(recipe: Recipe) -> int:
    """Values of a cell and day: inputs of the network and targets."""
    inputs = [field for field in PRODUCTS["smap_l4"].fields if field.layer is None]
    return len(inputs) + len(target_layers(recipe))


def _layer_weights(job: SampleJob) -> NDArray[np.float32]:
    """Thickness of each layer in metres times the weight of its product, (cells, layers)."""
    weight = read_cells(job.collocation, "weight", job.rows, job.columns)
    products = open_cube(job.collocation, chunks=None)["product"].values.tolist()
    layers = [layer for name in job.cubes for layer in PRODUCTS[name].layers]
    thickness = np.array([layer.thickness for layer in layers])
    position = [products.index(layer.product) for layer in layers]
    return np.asarray(weight[:, position] * thickness, dtype=np.float32)


def _fit(values: NDArray[np.float32], days: tuple[int, int]) -> NDArray[np.float32]:
    """Values (cells, time, …) up to the end of the period, missing before its start."""
    short = max(0, days[1] - values.shape[1])
    padding = [(0, 0), (0, short), *[(0, 0)] * (values.ndim - 2)]
    fitted = np.pad(values[:, : days[1]], padding, constant_values=np.nan)
    fitted[:, : days[0]] = np.nan
    return fitted


def _time_last(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.moveaxis(values, 1, -1))


def _cells(context: Context, stations: pd.DataFrame) -> pd.DataFrame:
    recipe = context.recipe
    cube = open_cube(context.paths.collocation, chunks=None)
    flag = cube["flag"].values
    complete = (flag != NOT_PROCESSED) & (flag != CollocationFlag.TOO_FEW_DAYS)
    options, region = recipe.sample, recipe.tiles
    cells = select_cells(
        stations,
        complete,
        (region.rows.start, region.columns.start),
        other_cells=options.other_cells,
        other_outside=options.other_outside,
        split=options.split,
        seed=options.seed,
    )
    if not (cells["split"] == "train").any():
        raise StageError(
            f"no cell can train: {int(complete.sum())} land cells have all products, "
            f"{len(stations)} cells have stations, sample.other_cells is {options.other_cells}. "
            "Check the region and sample.other_outside in the recipe."
        )
    return cells


def _jobs(context: Context, cells: pd.DataFrame) -> list[SampleJob]:
    paths, recipe = context.paths, context.recipe
    cubes = {name: paths.product(name) for name in recipe.collocation.products}
    inputs = _inputs(context)
    owners = [
        Tile(row // TILE_ROWS, column // TILE_COLUMNS)
        for row, column in zip(cells["row"].tolist(), cells["column"].tolist(), strict=True)
    ]
    return [
        SampleJob(
            tile,
            owners.index(tile),
            tuple(group["row"].tolist()),
            tuple(group["column"].tolist()),
            (recipe.period.days.start, recipe.period.days.stop),
            cubes,
            paths.product("smap_l4"),
            paths.static,
            paths.collocation,
            inputs,
        )
        for tile in dict.fromkeys(owners)
        for group in [cells[[owner == tile for owner in owners]]]
    ]


def _template(context: Context, cells: pd.DataFrame) -> Template:
    fields = PRODUCTS["smap_l4"].fields
    variables = {field.name: field.units for field in fields if field.layer is None}
    columns = {name: cells[name].to_numpy() for name in cells.columns}
    return samples_template(columns, variables, target_layers(context.recipe))


def _inputs(context: Context) -> str:
    paths, recipe = context.paths, context.recipe
    cubes = [paths.product(name) for name in {"smap_l4", *recipe.collocation.products}]
    urls = [*sorted(cubes), paths.static, paths.collocation]
    return inputs_of(urls, recipe.digest("sample", "ground_truth", "period"))
