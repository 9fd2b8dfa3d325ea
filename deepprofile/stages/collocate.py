"""Stage collocate: error variances and weights of the products in every land cell.

Two publications: the estimates of every tile, then the median weights of the valid cells written
where triple collocation does not hold (a median needs all tiles).
Both have the same key in the ledger, and the fingerprint of the second begins with that of the
first: estimates that are written again take a tile back to the first, so its weights are filled
again.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile import places
from deepprofile.collocation import flag_attributes, median_weights
from deepprofile.collocation.statistics import N_STATISTICS
from deepprofile.evaluation.figures.collocation_maps import collocation_maps
from deepprofile.evaluation.figures.style import image
from deepprofile.products import PRODUCTS
from deepprofile.recipe import Recipe
from deepprofile.stages.collocate_columns import AHEAD
from deepprofile.stages.collocate_inputs import Inputs, drawn_cells
from deepprofile.stages.collocate_job import (
    EXTENDED,
    CollocateJob,
    FallbackJob,
    TileReport,
    write_estimates,
    write_fallback,
)
from deepprofile.stages.collocate_report import absent, say
from deepprofile.stages.collocate_summary import Summary, summarise
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.extent import land_of
from deepprofile.stages.publication import (
    fingerprint_of,
    forget_unplanned,
    outstanding,
    publish_stage,
    require_all,
    to_retry,
)
from deepprofile.stages.static import read_land
from deepprofile.stages.tile_statistics import SPAN_BLOCKS
from deepprofile.store import (
    Template,
    collocation_template,
    done_jobs,
    head,
    open_cube,
    planned_head,
)
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS, Tile
from deepprofile.store.writer import IN_FLIGHT

STAGE = "collocate"
ERRORS = ("error_variance_std", "weight_std")
MAP_DPI = 100


def run(context: Context) -> str:
    """Collocate the tiles that are not done for these inputs; then fill in the fallback."""
    url = context.paths.collocation
    planned_at, jobs = planned_head(url), _jobs(context)
    forget_unplanned(url, STAGE, jobs)
    done, only = done_jobs(url, STAGE), to_retry(context, url, STAGE)
    rest = [
        job
        for job in jobs
        if not done.get(job.key, "").startswith(job.fingerprint)
        and (only is None or job.key in only)
    ]
    if rest:
        outcome = publish_stage(
            context,
            url,
            _template(context.recipe),
            write_estimates,
            rest,
            stage=STAGE,
            what="error variances",
            planned_at=planned_at,
            summarise=partial(_notes, context.recipe),
        )
        planned_at = outcome.snapshot_id
        say(context, _reports(outcome.results), rest[0].days)
        require_all(STAGE, outcome.failed)
    done = done_jobs(url, STAGE)
    finished = [job for job in jobs if done.get(job.key, "").startswith(job.fingerprint)]
    _publish_fallback(context, finished, planned_at)
    summary, maps = summarise(url), f"{context.paths.collocation_parts}/maps.png"
    if summary.flags and (rest or not places.exists(maps)):
        _draw(summary, maps)
    return f"{summary.line}; maps in {maps}"


def plan(recipe: Recipe) -> Plan:
    """Reads every layer of three products once; writes a few numbers a cell."""
    land, days, options = land_of(recipe), recipe.period.days, recipe.collocation
    n_days = days.stop - days.start
    n_layers = [len(PRODUCTS[name].layers) for name in options.products]
    read = land.tiles * TILE_CELLS * n_days * sum(n_layers) * 4
    everywhere = options.bootstrap_cells == "all"
    span_bytes = 8 * N_STATISTICS + 4 * len(n_layers)
    n_spans = -(-n_days // (SPAN_BLOCKS * BLOCK_DAYS)) + 1
    stored = 0 if everywhere else land.cells * n_spans * span_bytes
    written = land.tiles * sum(array.chunk_bytes for array in _template(recipe).arrays) + stored
    in_flight = BLOCK_DAYS * (3 * AHEAD + 2 * IN_FLIGHT * max(n_layers))
    series = 3 * n_days if everywhere else 0
    memory = (4 * (in_flight + series) + 3 * n_spans * span_bytes) * TILE_CELLS
    cells = land.cells if everywhere else min(land.cells, int(options.bootstrap_cells))
    cell_days = land.cells * n_days
    return Plan(
        land.tiles,
        read,
        written,
        memory,
        "tiles with land; later runs read new and changed blocks alone",
        {
            "read": read,
            "write": written,
            "collocate": cell_days,
            "bootstrap": cells * n_days * options.bootstrap,
        },
    )


def _jobs(context: Context) -> list[CollocateJob]:
    recipe, paths = context.recipe, context.paths
    options, inputs = recipe.collocation, Inputs(context)
    land = read_land(paths.static)
    tiles = recipe.tiles.land_tiles(land)
    replicates, notes = _replicates(recipe, inputs)
    for line in [*inputs.gaps(tiles), *notes]:
        context.console.print(f"  [yellow]{line}[/yellow]", highlight=False)
    settings = recipe.digest("collocation"), head(paths.static)
    drawn = _drawn(recipe, land)

    def make(tile: Tile) -> CollocateJob:
        blocks = inputs.of(tile)
        return CollocateJob(
            tile,
            {name: paths.product(name) for name in options.products},
            paths.static,
            blocks,
            options.anomalies,
            _scale(recipe),
            options.min_samples,
            _arrays(recipe),
            replicates,
            options.block_days,
            options.seed,
            None if drawn is None else _places(drawn[recipe.tiles.local(tile)]),
            f"{paths.collocation_parts}/statistics/tile_{tile.row}_{tile.column}.npz",
            fingerprint_of([*settings, *(block.fingerprint for block in blocks)]),
        )

    return [make(tile) for tile in tiles]


def _replicates(recipe: Recipe, inputs: Inputs) -> tuple[int, list[str]]:
    """Replicates of the bootstrap, none for days that hold no block; and what is to be said.

    Raises:
        StageError: if all cells are to be bootstrapped, and can't be.
    """
    options, n_days = recipe.collocation, inputs.days[1] - inputs.days[0]
    if not options.bootstrap or n_days >= options.block_days:
        return options.bootstrap, []
    text = f"{n_days} days hold no bootstrap block of {options.block_days} days"
    if options.bootstrap_cells == "all":
        raise StageError(
            f"collocate: {text}. Extend period, or set collocation.block_days lower and expect "
            "errors that are too small, or collocation.bootstrap to 0."
        )
    return 0, [f"no sampling errors: {text}"]


def _drawn(recipe: Recipe, land: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Cells of the region that are bootstrapped; None: all."""
    options = recipe.collocation
    if not options.bootstrap:
        return np.zeros_like(land)
    if options.bootstrap_cells == "all":
        return None
    return drawn_cells(land, options.bootstrap_cells, options.seed)


def _places(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())


def _scale(recipe: Recipe) -> tuple[float, ...]:
    options = recipe.collocation
    return tuple(options.scale.get(name, 1.0) for name in options.products)


def _arrays(recipe: Recipe) -> tuple[str, ...]:
    options = recipe.collocation
    return (ERRORS if options.bootstrap else ()) + (EXTENDED if options.extended else ())


def _template(recipe: Recipe) -> Template:
    options = recipe.collocation
    return collocation_template(
        recipe.tiles,
        options.products,
        flag_attributes=flag_attributes(options.products),
        bootstrap=options.bootstrap > 0,
        extended=options.extended,
    )


def _reports(results: Sequence[tuple[Any, Any]]) -> list[TileReport]:
    return [report for _, report in results]


def _notes(recipe: Recipe, results: list[tuple[Any, Any]]) -> Mapping[str, Any]:
    """What the ledger says of the days and blocks of some tiles."""
    jobs: list[CollocateJob] = [job for job, _ in results]
    reports, days = _reports(results), jobs[0].days
    return {
        "days": list(days),
        "made_of": {job.fingerprint: [b.fingerprint for b in job.blocks] for job in jobs},
        "blocks_read": sum(report.read for report in reports),
        "blocks_kept": sum(report.kept for report in reports),
        "absent": absent(recipe.collocation.products, reports, days),
    }


def _publish_fallback(context: Context, jobs: list[CollocateJob], planned_at: str) -> None:
    """Write the weights of flagged cells in every tile that does not have them yet."""
    url = context.paths.collocation
    given = _fallback_weights(url, _scale(context.recipe))
    named = [f"{weight:.9f}" for weight in given]
    candidates = [
        FallbackJob(job.tile, url, given, " ".join([job.fingerprint, *named])) for job in jobs
    ]
    rest = outstanding(candidates, done_jobs(url, STAGE))
    if rest:
        outcome = publish_stage(
            context,
            url,
            _template(context.recipe),
            write_fallback,
            rest,
            stage=STAGE,
            what="weights of invalid cells",
            planned_at=planned_at,
            metadata={"fallback_weights": list(given)},
        )
        require_all(STAGE, outcome.failed)


def _fallback_weights(url: str, scale: tuple[float, ...]) -> tuple[float, ...]:
    cube = open_cube(url, chunks=None)
    weights = median_weights(cube["weight"].values, cube["flag"].values, scale)
    return tuple(float(weight) for weight in weights)


def _draw(summary: Summary, url: str) -> None:
    medians = {"weight": summary.median_weight, "error": np.sqrt(summary.median_error)}
    figure = collocation_maps(
        summary.fields,
        summary.meanings,
        summary.invalid,
        {name: values.tolist() for name, values in medians.items()},
    )
    places.write_bytes(url, image(figure, "png", dpi=MAP_DPI))
