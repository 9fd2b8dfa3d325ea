"""Stage collocate: error variances and weights of the products in every land cell.

Two publications: the estimates of every tile, then the median weights of the valid cells written
where triple collocation does not hold (a median needs all tiles).
Both have the same key in the ledger, and the fingerprint of the second begins with that of the
first: estimates that are written again take a tile back to the first, so its weights are filled
again.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile.collocation import (
    Estimates,
    Flag,
    SamplingErrors,
    accumulate,
    block_bootstrap,
    column_mean,
    draw_blocks,
    finish,
    flag_attributes,
    median_weights,
)
from deepprofile.products import PRODUCTS
from deepprofile.recipe import Recipe
from deepprofile.stages.context import Context, Plan
from deepprofile.stages.extent import land_of
from deepprofile.stages.publication import (
    inputs_of,
    outstanding,
    publish_stage,
    require_all,
    to_retry,
)
from deepprofile.stages.static import read_land
from deepprofile.store import (
    SinglePiece,
    Template,
    Writer,
    collocation_template,
    done_jobs,
    layers_of,
    open_cube,
    planned_head,
    read_tile,
)
from deepprofile.store.kinds import NOT_PROCESSED
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS, Tile

STAGE = "collocate"
DOMINANT = 0.9
"""A weight above this leaves little to the other products."""


@dataclass(frozen=True)
class CollocateJob(SinglePiece):
    """One tile.

    Attributes:
        tile: the tile.
        cubes: URL of each of the three products' cubes, by product, in order.
        static: URL of the cube with the land mask.
        days: first day index and the one after the last.
        scale: factor s of each product.
        min_samples: fewest common days.
        bootstrap: replicates, 0 for none.
        block_days: days of a bootstrap block.
        seed: seed of the bootstrap.
        fingerprint: of the cubes read and the settings.
    """

    tile: Tile
    cubes: Mapping[str, str]
    static: str
    days: tuple[int, int]
    scale: tuple[float, ...]
    min_samples: int
    bootstrap: int
    block_days: int
    seed: int
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return f"tile {self.tile.row} {self.tile.column}"


@dataclass(frozen=True)
class FallbackJob(SinglePiece):
    """One tile, and the weights that its invalid cells get."""

    tile: Tile
    cube: str
    weights: tuple[float, ...]
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return f"tile {self.tile.row} {self.tile.column}"


def run(context: Context) -> str:
    """Collocate the tiles that are not done for these inputs; then fill in the fallback."""
    url = context.paths.collocation
    planned_at, jobs = planned_head(url), _jobs(context)
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
        )
        planned_at = outcome.snapshot_id
        require_all(STAGE, outcome.failed)
    done = done_jobs(url, STAGE)
    finished = [job for job in jobs if done.get(job.key, "").startswith(job.fingerprint)]
    _publish_fallback(context, finished, planned_at)
    return _describe(url)


def plan(recipe: Recipe) -> Plan:
    """Reads every layer of three products once; writes a few numbers a cell."""
    land, days = land_of(recipe), recipe.period.days
    n_days = days.stop - days.start
    n_layers = [len(PRODUCTS[name].layers) for name in recipe.collocation.products]
    read = land.tiles * TILE_CELLS * n_days * sum(n_layers) * 4
    written = land.tiles * sum(array.chunk_bytes for array in _template(recipe).arrays)
    memory = (3 * n_days + BLOCK_DAYS * max(n_layers)) * TILE_CELLS * 4
    cell_days = land.cells * n_days
    return Plan(
        land.tiles,
        read,
        written,
        memory,
        "tiles with land",
        {
            "read": read,
            "write": written,
            "collocate": cell_days,
            "bootstrap": cell_days * recipe.collocation.bootstrap,
        },
    )


def write_estimates(writer: Writer, job: CollocateJob) -> int:
    """Collocate one tile; returns the number of its land cells."""
    land = read_tile(job.static, "land", job.tile) == 1
    series = [_column(url, job, land) for url in job.cubes.values()]
    x, y, z = series
    found = finish(accumulate(x, y, z), job.scale, job.min_samples)
    place = writer.select(job.tile)
    for name, values in _variables(found, _errors(job, series)).items():
        full = np.full((*values.shape[:-1], *land.shape), _missing(values), values.dtype)
        full[..., land] = values
        writer.write(name, place, full)
    return int(land.sum())


def write_fallback(writer: Writer, job: FallbackJob) -> int:
    """Give the invalid cells of a tile the fallback weights; returns their number."""
    cube = open_cube(job.cube, chunks=None)
    weight, flag = read_tile(cube, "weight", job.tile), read_tile(cube, "flag", job.tile)
    invalid = (flag != Flag.VALID) & (flag != NOT_PROCESSED)
    weight[:, invalid] = np.asarray(job.weights, dtype=np.float32)[:, None]
    writer.write("weight", writer.select(job.tile), weight)
    return int(invalid.sum())


def _jobs(context: Context) -> list[CollocateJob]:
    recipe, paths = context.recipe, context.paths
    options = recipe.collocation
    days, inputs = recipe.period.days, _inputs(context)
    land = read_land(paths.static)
    return [
        CollocateJob(
            tile,
            {name: paths.product(name) for name in options.products},
            paths.static,
            (days.start, days.stop),
            _scale(recipe),
            options.min_samples,
            options.bootstrap,
            options.block_days,
            options.seed,
            inputs,
        )
        for tile in recipe.tiles.land_tiles(land)
    ]


def _scale(recipe: Recipe) -> tuple[float, ...]:
    options = recipe.collocation
    return tuple(options.scale.get(name, 1.0) for name in options.products)


def _inputs(context: Context) -> str:
    cubes = [context.paths.product(name) for name in context.recipe.collocation.products]
    return inputs_of([*cubes, context.paths.static], context.recipe.digest("collocation", "period"))


def _template(recipe: Recipe) -> Template:
    options = recipe.collocation
    return collocation_template(
        recipe.tiles,
        options.products,
        flag_attributes=flag_attributes(options.products),
        bootstrap=options.bootstrap > 0,
    )


def _column(url: str, job: CollocateJob, land: NDArray[np.bool_]) -> NDArray[np.float32]:
    """0-100 cm means of a product on the land cells of a tile, (time, cells), block by block."""
    cube = open_cube(url, chunks=None)
    layers = layers_of(cube)
    start, stop = job.days
    mean = np.full((stop - start, int(land.sum())), np.nan, np.float32)
    for first in range(start, min(stop, cube.sizes["time"]), BLOCK_DAYS):
        last = min(first + BLOCK_DAYS, stop, cube.sizes["time"])
        values = read_tile(cube, "soil_moisture", job.tile, (first, last))
        mean[first - start : last - start] = column_mean(values[..., land], layers, axis=1)
    return mean


def _errors(job: CollocateJob, series: list[NDArray[np.float32]]) -> SamplingErrors | None:
    if not job.bootstrap:
        return None
    n_days = len(series[0])
    blocks = draw_blocks(n_days, job.bootstrap, job.block_days, job.seed)
    x, y, z = series
    return block_bootstrap(x, y, z, np.arange(n_days), blocks, job.scale)


def _variables(found: Estimates, errors: SamplingErrors | None) -> dict[str, NDArray[Any]]:
    variables: dict[str, NDArray[Any]] = {
        name: getattr(found, name).astype(np.float32)
        for name in ("weight", "error_variance", "sensitivity", "signal_to_noise")
    }
    variables |= {"n_samples": found.n_samples, "flag": found.flag}
    if errors is not None:
        known = found.flag != Flag.TOO_FEW_DAYS, found.flag == Flag.VALID
        for name, there in zip(("error_variance_std", "weight_std"), known, strict=True):
            variables[name] = np.where(there, getattr(errors, name), np.nan).astype(np.float32)
    return variables


def _missing(values: NDArray[Any]) -> float:
    if values.dtype.kind == "f":
        return float("nan")
    return NOT_PROCESSED if values.dtype == np.uint8 else 0


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


def _describe(url: str) -> str:
    """Medians of the weights, shares of invalid cells by reason, share of dominant weights."""
    cube = open_cube(url, chunks=None)
    weight, flag = cube["weight"].values, cube["flag"].values
    land = flag != NOT_PROCESSED
    counts = Counter(flag[land].tolist())
    n_land = max(int(land.sum()), 1)
    meanings = str(cube["flag"].attrs["flag_meanings"]).split()
    reasons = [
        f"{meanings[value]} {100 * count / n_land:.1f} %"
        for value, count in sorted(counts.items())
        if value != Flag.VALID
    ]
    valid = weight[:, flag == Flag.VALID]
    medians = np.median(valid, axis=1) if valid.size else np.full(3, np.nan)
    named = ", ".join(
        f"{name} {median:.3f}" for name, median in zip(cube["product"].values, medians, strict=True)
    )
    dominant = float((valid.max(axis=0) > DOMINANT).mean()) if valid.size else 0.0
    return (
        f"{n_land} land cells; median weights {named}; invalid: {', '.join(reasons) or 'none'}; "
        f"a weight above {DOMINANT}: {100 * dominant:.1f} %"
    )
