"""Stage ingest: granules become daily fields on the 9 km grid, blocks of days at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile.products import PRODUCTS, DailyFields, Granule, Product, SetAside
from deepprofile.recipe import Recipe
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Context, Plan
from deepprofile.stages.publication import publish_stage
from deepprofile.stages.static import publish_static
from deepprofile.store import (
    Template,
    Writer,
    done_jobs,
    open_cube,
    smap_l4_template,
    soil_moisture_template,
)
from deepprofile.store.layout import BLOCK_DAYS, Block, Region, Tile, blocks, day_at

STAGE = "ingest"


@dataclass(frozen=True)
class IngestJob:
    """One block of one band of one product.

    Attributes:
        product: name of the product.
        granules: granules with steps in the block.
        block: the block.
        days: first day index and the one after the last; the last block may be cut short.
        band: tile rows to read.
        tiles: tiles of the band that hold land.
        static: URL of the cube with the land mask.
        min_fraction: share of a day's steps that a daily mean needs.
    """

    product: str
    granules: tuple[Granule, ...]
    block: Block
    days: tuple[int, int]
    band: Region
    tiles: tuple[Tile, ...]
    static: str
    min_fraction: float

    @property
    def key(self) -> str:
        """Name in the ledger; it changes when the block grows or its granules do."""
        first, last = day_at(self.days[0]), day_at(self.days[1] - 1)
        names = "\n".join(sorted(granule.url.rsplit("/", 1)[-1] for granule in self.granules))
        inputs = sha256(names.encode()).hexdigest()[:12]
        rows = "-".join(str(row) for row in self.band.tile_rows)
        return f"{self.product} {first} to {last} rows {rows} granules {inputs}"


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
    return "; ".join(parts)


def plan(recipe: Recipe) -> Plan:
    """Jobs, bytes of all values as float32, and the memory of one job."""
    region, days = recipe.tiles, recipe.period.days
    cells = region.shape[0] * region.shape[1]
    n_days = days.stop - days.start
    products = [PRODUCTS[name] for name in recipe.products]
    n_fields = sum(len(product.fields) for product in products)
    read = sum(len(p.fields) * p.steps_per_day for p in products) * n_days * cells * 4
    band = next(bands(region))
    most = max(len(product.fields) for product in products)
    memory = BLOCK_DAYS * most * band.shape[0] * band.shape[1] * 4 * 2
    n_jobs = len(list(blocks(days.start, days.stop))) * len(list(bands(region))) * len(products)
    return Plan(n_jobs, read, n_fields * n_days * cells * 4, memory, "granules on the 9 km grid")


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
    return _result(fields)


def product_template(product: Product, region: Region) -> Template:
    """Structure of a product's cube: with forcing where some of its fields are no layers."""
    variables = {field.name: field.units for field in product.fields if field.layer is None}
    if variables:
        return smap_l4_template(region, variables, product.layers)
    return soil_moisture_template(product.name, region, product.layers)


def _ingest_product(context: Context, name: str, land: NDArray[np.bool_]) -> str:
    recipe, product = context.recipe, PRODUCTS[name]
    url, days = context.paths.product(name), recipe.period.days
    source = recipe.products[name].url
    granules, set_aside = product.granules(source, day_at(days.start), day_at(days.stop))
    done = done_jobs(url, STAGE)
    jobs = [job for job in _jobs(context, product, granules, land) if job.key not in done]
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
            summarise=lambda results: _summarise(results, set_aside),
        )
        _report(context, name, [result for _, result in outcome.results])
    _report(context, name, [IngestResult(set_aside, {}, [])] if jobs else [])
    return f"{name}: {len(jobs)} jobs" if jobs else f"{name}: all there already"


def _jobs(
    context: Context, product: Product, granules: Sequence[Granule], land: NDArray[np.bool_]
) -> Iterator[IngestJob]:
    recipe, region = context.recipe, context.recipe.tiles
    days = recipe.period.days
    tiles = region.land_tiles(land)
    for block in blocks(days.start, days.stop):
        span = max(block.days.start, days.start), min(block.days.stop, days.stop)
        inside = tuple(g for g in granules if g.overlaps(day_at(span[0]), day_at(span[1])))
        for band in bands(region):
            held = tuple(tile for tile in tiles if tile in band)
            if held:
                yield IngestJob(
                    product.name,
                    inside,
                    block,
                    span,
                    band,
                    held,
                    context.paths.static,
                    recipe.ingest.min_fraction,
                )


def _groups(jobs: Sequence[IngestJob], n_blocks: int) -> Iterator[list[IngestJob]]:
    """Jobs that are published together: those of ``n_blocks`` blocks."""
    starts = sorted({job.block for job in jobs})
    for i in range(0, len(starts), n_blocks):
        chosen = set(starts[i : i + n_blocks])
        yield [job for job in jobs if job.block in chosen]


def _result(fields: DailyFields) -> IngestResult:
    counts = {name: count for name, count in fields.out_of_range.items() if count}
    short = [f"{day} ({steps} steps)" for day, steps in fields.short_days]
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
