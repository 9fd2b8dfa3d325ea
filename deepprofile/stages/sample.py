"""Stage sample: ground truth of the stations, choice of cells, and the series of each cell."""

from collections.abc import Mapping

import pandas as pd
from dask.utils import format_bytes

from deepprofile.collocation import Flag as CollocationFlag
from deepprofile.collocation import median_weights
from deepprofile.products import PRODUCTS
from deepprofile.profile import Layer
from deepprofile.recipe import Recipe
from deepprofile.stages.cell_days import skipped
from deepprofile.stages.cell_table import COUNTS, counting_bytes, prepare_cell_table
from deepprofile.stages.cells import CANDIDATE, CORE, EXTRA, TRAIN, beside_core, select_cells
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.extent import land_of
from deepprofile.stages.extract import Extracted, SampleJob, write_series
from deepprofile.stages.publication import (
    inputs_of,
    outstanding,
    publish_stage,
    require_all,
    to_retry,
)
from deepprofile.stages.stations import prepare_ground_truth
from deepprofile.store import (
    NotACubeError,
    Template,
    done_jobs,
    open_cube,
    planned_head,
    read_cells,
    samples_template,
)
from deepprofile.store.kinds import NOT_PROCESSED
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS, TILE_COLUMNS, TILE_ROWS, Tile
from deepprofile.store.writer import IN_FLIGHT

STAGE = "sample"
SHARDS_READ = 3
"""Raw shards that reading one takes: raw, as read, packed (measured in a job: 2.7 to 3.1)."""


def run(context: Context) -> str:
    """Choose the cells and extract their series, where this is not done for these inputs."""
    url = context.paths.samples
    planned_at = planned_head(url)
    stations = prepare_ground_truth(context)
    cells = _cells(context, stations)
    _refuse_other_cells(url, cells)
    jobs = outstanding(_jobs(context, cells), done_jobs(url, STAGE), to_retry(context, url, STAGE))
    moved = [Extracted(0, 0)]
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
        moved += [extracted for _, extracted in outcome.results]
    table = prepare_cell_table(context, stations)
    read, written = (sum(part) for part in zip(*moved, strict=True))
    return (
        f"{_cells_line(table)}; {_samples_line(table)}; read {format_bytes(read)} and wrote "
        f"{format_bytes(written)} raw; table in {context.paths.cells}"
    )


def plan(recipe: Recipe) -> Plan:
    """Reads the tiles that hold chosen cells; writes the series of these."""
    n_days = recipe.period.days.stop - recipe.period.days.start
    cells = drawn_cells(recipe)
    tiles = min(land_of(recipe).tiles, cells)
    read = tiles * TILE_CELLS * n_days * _values_a_day(recipe) * 4
    written = series_bytes(recipe)
    in_flight = SHARDS_READ * IN_FLIGHT * BLOCK_DAYS * TILE_CELLS * _inputs_a_day() * 4
    memory = max(
        in_flight + 2 * written // max(tiles, 1), counting_bytes(n_days * _values_a_day(recipe))
    )
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


def target_layers(recipe: Recipe) -> list[Layer]:
    """Layers of the products that were collocated, in the order of the products."""
    return [layer for name in recipe.collocation.products for layer in PRODUCTS[name].layers]


def _values_a_day(recipe: Recipe) -> int:
    """Values of a cell and day: inputs of the network and targets."""
    return _inputs_a_day() + len(target_layers(recipe))


def _inputs_a_day() -> int:
    return sum(field.layer is None for field in PRODUCTS["smap_l4"].fields)


def training_weights(
    collocation: str, cells: pd.DataFrame, scale: Mapping[str, float]
) -> dict[str, float]:
    """Weight of each product where collocation is invalid: the median over valid training cells.

    The medians of the collocation cube are over all cells and so over those that validate too:
    what a network learns from must not depend on these.

    Args:
        collocation: URL of the cube.
        cells: columns ``row``, ``column``, ``split``.
        scale: factor s of a product, 1 where not named; the weights are ∝ s where no training cell
            is valid.
    """
    training = cells[cells["split"] == TRAIN]
    where = training["row"].to_numpy(), training["column"].to_numpy()
    cube = open_cube(collocation, chunks=None)
    weight, flag = (read_cells(cube, name, *where) for name in ("weight", "flag"))
    products = cube["product"].values.tolist()
    medians = median_weights(weight.T, flag, [scale.get(name, 1.0) for name in products])
    return dict(zip(products, medians.tolist(), strict=True))


def _cells_line(table: pd.DataFrame) -> str:
    counts = table.value_counts(["class", "split"]).sort_index(level=["split", "class"])
    named = zip(counts.index.tolist(), counts.tolist(), strict=True)
    return ", ".join(f"{n:,} {kind} cells for {split}" for (kind, split), n in named)


def _samples_line(table: pd.DataFrame) -> str:
    days = {name: int(table[name].sum()) for name in COUNTS}
    total = sum(days.values())
    return f"{days['samples']:,} samples of {total:,} cell-days; skipped: {skipped(days)}"


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
        allow_core_neighbours=options.allow_core_neighbours,
    )
    if not (cells["split"] == TRAIN).any():
        raise StageError(
            f"no cell can train: {int(complete.sum())} land cells have all products, "
            f"{len(stations)} cells have stations, sample.other_cells is {options.other_cells}. "
            "Check the region and sample.other_outside in the recipe; where all cells lie beside "
            "core cells, sample.allow_core_neighbours lets them train."
        )
    _tell_left_out(context, cells, stations)
    if not options.allow_core_neighbours:
        _tell_neighbours(context, cells, int(beside_core(cells, stations).sum()))
    return cells


def _tell_left_out(context: Context, cells: pd.DataFrame, stations: pd.DataFrame) -> None:
    """Name the station cells that would count but for their place or the products."""
    known = stations[stations["cell_class"].isin([CORE, EXTRA])]
    found = known.merge(cells[["row", "column"]], on=["row", "column"], how="left", indicator=True)
    absent = found[found["_merge"] == "left_only"]
    if absent.empty:
        return
    region = context.recipe.tiles
    inside = absent["row"].between(region.rows.start, region.rows.stop - 1)
    inside &= absent["column"].between(region.columns.start, region.columns.stop - 1)
    lacking = absent[inside]
    named = "; ".join(f"row {x.row} column {x.column}" for x in lacking.head(10).itertuples())
    more = f" and {len(lacking) - 10} more" if len(lacking) > 10 else ""
    context.console.print(
        f"  [yellow]{len(absent)} of {len(known)} core and extra cells are left out[/yellow]: "
        f"{int((~inside).sum())} outside the region, {len(lacking)} without "
        f"{context.recipe.collocation.min_samples} days of all products"
        + (f" ({named}{more})" if named else ""),
        highlight=False,
    )


def _tell_neighbours(context: Context, cells: pd.DataFrame, n_beside: int) -> None:
    if not n_beside:
        return
    split, free = context.recipe.sample.split, int((cells["cell_class"] != CORE).sum())
    context.console.print(
        f"  {n_beside:,} of {free:,} extra and other cells lie beside core cells and validate",
        highlight=False,
    )
    for name, share in ((TRAIN, split.train), (CANDIDATE, split.candidate)):
        found, wanted = int((cells["split"] == name).sum()), round(share * free)
        if found < wanted:
            context.console.print(
                f"  [yellow]so {found:,} cells are left for {name}, {wanted:,} were to be[/yellow]",
                highlight=False,
            )


def _jobs(context: Context, cells: pd.DataFrame) -> list[SampleJob]:
    paths, recipe = context.paths, context.recipe
    cubes = {name: paths.product(name) for name in recipe.collocation.products}
    given = training_weights(paths.collocation, cells, recipe.collocation.scale)
    fallback = tuple(given[name] for name in cubes)
    inputs = _inputs(context, cells, fallback)
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
            fallback,
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


def _inputs(context: Context, cells: pd.DataFrame, fallback: tuple[float, ...]) -> str:
    """Fingerprint of what the series depend on: cubes, period, the chosen cells, the fallback."""
    paths, recipe = context.paths, context.recipe
    cubes = [paths.product(name) for name in {"smap_l4", *recipe.collocation.products}]
    urls = [*sorted(cubes), paths.static, paths.collocation]
    weights = [f"{weight:.9f}" for weight in fallback]
    return inputs_of(urls, recipe.digest("period"), cells.to_csv(index=False), *weights)


def _refuse_other_cells(url: str, cells: pd.DataFrame) -> None:
    """Stop if the cube of samples holds other cells than the recipe and its stations choose now.

    Raises:
        StageError: saying how many differ, and what to do.
    """
    try:
        cube = open_cube(url, chunks=None)
    except NotACubeError:
        return
    names = list(cells.columns)
    held = pd.DataFrame({name: cube[name].values for name in names})
    both = held.merge(cells, on=["row", "column"], suffixes=("_held", ""))
    moved = both[both["split_held"] != both["split"]]
    classed = both[both["cell_class_held"] != both["cell_class"]]
    gone, new = len(held) - len(both), len(cells) - len(both)
    if gone or new or len(moved) or len(classed):
        raise StageError(
            f"{url} holds other cells than are chosen now: {new} are new, {gone} are no longer "
            f"chosen, {len(classed)} changed their class and {len(moved)} their split. The choice "
            "follows from the recipe's section sample, the stations and which cells have all "
            "products. Put these back, or give the recipe another root; to start anew in this "
            f"one, remove {url}, and then the model and the profiles, which were made from it."
        )
