"""Stage ingest: granules become daily fields on the 9 km grid, blocks of days at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile.products import PRODUCTS, DailyFields, Granule, Product, SetAside
from deepprofile.products.files import file_name, file_tags
from deepprofile.recipe import Recipe
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Context, Plan
from deepprofile.stages.extent import land_of
from deepprofile.stages.publication import (
    fingerprint_of,
    outstanding,
    publish_stage,
    require_all,
)
from deepprofile.stages.static import publish_static
from deepprofile.store import (
    JobFailure,
    NotACubeError,
    SinglePiece,
    Template,
    Writer,
    done_jobs,
    head,
    open_cube,
    smap_l4_template,
    soil_moisture_template,
)
from deepprofile.store.layout import (
    BLOCK_DAYS,
    TILE_CELLS,
    Block,
    Region,
    Tile,
    blocks,
    day_at,
    day_index,
)

STAGE = "ingest"


@dataclass(frozen=True)
class IngestJob(SinglePiece):
    """One block of one band of one product.

    Attributes:
        product: name of the product.
        granules: granules with steps in the block.
        block: the block, written whole as far as the cube reaches.
        days: first day index of the block and the one after the last that is written.
        period: first day index of the recipe and the one after its last; days outside that have
            too few steps are no news.
        band: tile rows to read.
        tiles: tiles of the band that hold land.
        static: URL of the cube with the land mask.
        min_fraction: share of a day's steps that a daily mean needs.
        fingerprint: of the granules, the days, the land mask and the settings.
    """

    product: str
    granules: tuple[Granule, ...]
    block: Block
    days: tuple[int, int]
    period: tuple[int, int]
    band: Region
    tiles: tuple[Tile, ...]
    static: str
    min_fraction: float
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return place_of(self.block, self.band)


@dataclass(frozen=True)
class IngestResult:
    """What a job found amiss; all of it stands in the commit log."""

    set_aside: list[SetAside]
    out_of_range: dict[str, int]
    short_days: list[str]


def run(context: Context) -> str:
    """Ingest every product of the recipe; blocks that are in the cubes already are left out."""
    land = publish_static(context)
    parts = [_ingest_product(context, name, land) for name in context.recipe.products]
    require_all(STAGE, [failure for _, failed in parts for failure in failed])
    return "; ".join(summary for summary, _ in parts)


def plan(recipe: Recipe) -> Plan:
    """Reads every step of every field in bands with land; writes whole blocks of their tiles that
    have some.
    """
    region, land = recipe.tiles, land_of(recipe)
    n_blocks = len(list(blocks(recipe.period.days.start, recipe.period.days.stop)))
    products = [PRODUCTS[name] for name in recipe.products]
    with_land = [band for band in bands(region) if land_of(recipe, band).tiles]
    in_bands = sum(band.shape[0] * band.shape[1] for band in with_land)
    cells = land.cells if recipe.synthetic else in_bands
    cell_days = n_blocks * BLOCK_DAYS * cells
    read = sum(len(p.fields) * p.steps_per_day for p in products) * cell_days * 4
    in_tiles = n_blocks * BLOCK_DAYS * land.tiles * TILE_CELLS
    written = sum(4 * len(product.fields) + 1 for product in products) * in_tiles
    band = next(bands(region))
    most = max(len(product.fields) for product in products)
    memory = BLOCK_DAYS * most * band.shape[0] * band.shape[1] * 4 * 2
    return Plan(
        n_blocks * len(with_land) * len(products),
        read,
        written,
        memory,
        "granules on the 9 km grid; the time to decode them is not measured",
        {"decode": read, "write": written},
    )


def write_block(writer: Writer, job: IngestJob) -> IngestResult:
    """Read a block of a band and write a shard for each tile with land."""
    product = PRODUCTS[job.product]
    fields = product.read_daily(
        job.granules,
        day_at(job.days[0]),
        job.days[1] - job.days[0],
        job.band.rows,
        job.band.columns,
        min_fraction=job.min_fraction,
    )
    land = open_cube(job.static, chunks=None)["land"]
    corner = writer.region
    layered = np.array([field.layer is not None for field in product.fields])
    for tile in job.tiles:
        rows, columns = job.band.local(tile)
        sea = land[corner.local(tile)].values == 0
        values = fields.values[:, :, rows, columns]
        values[:, :, sea] = np.nan
        n_steps = fields.n_steps[:, rows, columns].copy()
        n_steps[:, sea] = 0
        place = writer.select(tile, job.block)
        writer.write("soil_moisture", place, np.ascontiguousarray(values[:, layered]))
        writer.write("n_steps", place, n_steps)
        if not layered.all():
            writer.write("forcing", place, np.ascontiguousarray(values[:, ~layered]))
    return _result(fields, job.period)


def place_of(block: Block, band: Region) -> str:
    """Name of a block of a band in the ledger of a product's cube."""
    rows = "-".join(str(row) for row in band.tile_rows)
    return f"block {block.index} rows {rows}"


def product_template(product: Product, region: Region) -> Template:
    """Structure of a product's cube: with forcing where some of its fields are no layers."""
    variables = {field.name: field.units for field in product.fields if field.layer is None}
    if variables:
        return smap_l4_template(region, variables, product.layers)
    return soil_moisture_template(product.name, region, product.layers)


def _ingest_product(
    context: Context, name: str, land: NDArray[np.bool_]
) -> tuple[str, list[JobFailure]]:
    recipe, product = context.recipe, PRODUCTS[name]
    url, source = context.paths.product(name), recipe.products[name].url
    start, stop = _whole_blocks(context, url)
    granules, set_aside = product.granules(source, day_at(start), day_at(stop))
    _report(context, name, [IngestResult(set_aside, {}, [])])
    jobs = outstanding(_jobs(context, product, granules, land, stop), done_jobs(url, STAGE))
    failed: list[JobFailure] = []
    for group in _groups(jobs, recipe.ingest.blocks_per_commit):
        first, last = day_at(group[0].days[0]), day_at(group[-1].days[1] - 1)
        outcome = publish_stage(
            context,
            url,
            product_template(product, recipe.tiles),
            write_block,
            group,
            stage=STAGE,
            what=f"{name} {first} to {last}",
            n_days=group[-1].days[1],
            metadata={"source": source},
            summarise=partial(_summarise, listed=set_aside if group[0] is jobs[0] else []),
        )
        failed += outcome.failed
        _report(context, name, [result for _, result in outcome.results])
    return f"{name}: {len(jobs)} jobs" if jobs else f"{name}: all there already", failed


def _whole_blocks(context: Context, url: str) -> tuple[int, int]:
    """First day of the period's first block, and the day after its last or after the cube's last.

    A block is written whole: days that the cube has of it already must not be lost to a shorter
    period.
    """
    days = context.recipe.period.days
    *_, last = blocks(days.start, days.stop)
    try:
        held = int(open_cube(url, chunks=None).sizes["time"])
    except NotACubeError:
        held = 0
    first = next(blocks(days.start, days.stop))
    return first.days.start, min(last.days.stop, max(days.stop, held))


def _jobs(
    context: Context,
    product: Product,
    granules: Sequence[Granule],
    land: NDArray[np.bool_],
    stop: int,
) -> Iterator[IngestJob]:
    recipe, region, static = context.recipe, context.recipe.tiles, context.paths.static
    days = recipe.period.days
    tags = file_tags(recipe.products[product.name].url)
    settings = [head(static), str(recipe.ingest.min_fraction), *(f.name for f in product.fields)]
    tiles = region.land_tiles(land)
    for block in blocks(days.start, days.stop):
        span = block.days.start, min(block.days.stop, stop)
        inside = tuple(g for g in granules if g.overlaps(day_at(span[0]), day_at(span[1])))
        names = (file_name(granule.url) for granule in inside)
        inputs = fingerprint_of([*settings, str(span), *(f"{n} {tags[n]}" for n in names)])
        for band in bands(region):
            held = tuple(tile for tile in tiles if tile in band)
            if held:
                yield IngestJob(
                    product.name,
                    inside,
                    block,
                    span,
                    (days.start, days.stop),
                    band,
                    held,
                    static,
                    recipe.ingest.min_fraction,
                    inputs,
                )


def _groups(jobs: Sequence[IngestJob], n_blocks: int) -> Iterator[list[IngestJob]]:
    """Jobs that are published together: those of ``n_blocks`` blocks."""
    starts = sorted({job.block for job in jobs})
    for i in range(0, len(starts), n_blocks):
        chosen = set(starts[i : i + n_blocks])
        yield [job for job in jobs if job.block in chosen]


def _result(fields: DailyFields, period: tuple[int, int]) -> IngestResult:
    counts = {name: count for name, count in fields.out_of_range.items() if count}
    short = [
        f"{day} ({steps} steps)"
        for day, steps in fields.short_days
        if period[0] <= day_index(day) < period[1]
    ]
    return IngestResult(fields.set_aside, counts, short)


def _summarise(results: list[tuple[Any, Any]], listed: list[SetAside]) -> dict[str, Any]:
    merged = _merge([result for _, result in results])
    aside = {**{item.url: item.reason for item in listed}, **merged[0]}
    return {
        "set_aside": [{"url": url, "reason": reason} for url, reason in aside.items()],
        "out_of_range": merged[1],
        "short_days": merged[2],
    }


def _merge(results: Sequence[IngestResult]) -> tuple[dict[str, str], dict[str, int], list[str]]:
    aside = {item.url: item.reason for result in results for item in result.set_aside}
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.out_of_range)
    return aside, dict(counts), sorted({day for result in results for day in result.short_days})


def _report(context: Context, name: str, results: Sequence[IngestResult]) -> None:
    """Say at the end of a group what was set aside and what was out of range."""
    aside, counts, short = _merge(results)
    lines = [f"[yellow]set aside[/yellow] {url}: {reason}" for url, reason in aside.items()]
    if short:
        lines.append(f"[yellow]too few steps[/yellow] on {', '.join(short)}: missing")
    if counts:
        named = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        lines.append(f"[yellow]outside the valid range[/yellow], taken as missing: {named}")
    for line in lines:
        context.console.print(f"  {name}: {line}", highlight=False)
