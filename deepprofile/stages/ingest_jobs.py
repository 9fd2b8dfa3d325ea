"""The jobs of the ingest stage: a block of a band of tile rows, read as far as it has changed."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.products import PRODUCTS, DailyFields, Granule, Product, SetAside
from deepprofile.products.base import MissingVariableError
from deepprofile.store import (
    SinglePiece,
    Template,
    Writer,
    open_cube,
    read_tile,
    smap_l4_template,
    soil_moisture_template,
)
from deepprofile.store.layout import Block, Region, Tile, day_at, day_index
from deepprofile.store.packing import ShardError

STAGE = "ingest"


@dataclass(frozen=True)
class IngestJob(SinglePiece):
    """One block of one band of one product.

    Attributes:
        product: name of the product.
        granules: granules with steps on the days that are made from granules.
        block: the block, written whole as far as the cube reaches.
        n_days: number of days of it that are written.
        fresh: positions in the block of the days that are made from granules; the others are
            taken from the shards as published.
        listed: hours of the granules of each day, as bits.
        held: hours of which each day as published holds steps; 0 where it is not there.
        period: first day index of the recipe and the one after its last; days outside that have
            too few steps are no news.
        band: tile rows to read.
        tiles: tiles of the band that hold land.
        cube: URL of the product's cube.
        snapshot: the snapshot of it that holds published days; empty if there are none.
        static: URL of the cube with the land mask.
        min_fraction: share of a day's steps that a daily mean needs.
        fingerprint: of what each day of the block is made from.
    """

    product: str
    granules: tuple[Granule, ...]
    block: Block
    n_days: int
    fresh: tuple[int, ...]
    listed: tuple[int, ...]
    held: tuple[int, ...]
    period: tuple[int, int]
    band: Region
    tiles: tuple[Tile, ...]
    cube: str
    snapshot: str
    static: str
    min_fraction: float
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return place_of(self.block, self.band)

    @property
    def days(self) -> tuple[int, int]:
        """First day index of the block and the one after the last that is written."""
        return self.block.days.start, self.block.days.start + self.n_days

    @property
    def kept(self) -> tuple[int, ...]:
        """Positions in the block of the days that are taken as published."""
        return tuple(i for i in range(self.n_days) if i not in self.fresh)

    @property
    def made_before(self) -> bool:
        """Whether some of the kept days were made from granules."""
        return any(self.held[day] for day in self.kept)


@dataclass(frozen=True)
class IngestResult:
    """What a job found amiss; all of it stands in the commit log.

    Attributes:
        set_aside: granules, or parts of them, that were not used.
        out_of_range: number of values outside the valid range by variable.
        short_days: days with too few steps.
        unread: by position in the block, the listed hours of which the day holds no step.
        kept_days: days that stay as published, as granules in the place of those of which they
            were made could not be read.
    """

    set_aside: list[SetAside]
    out_of_range: dict[str, int] = field(default_factory=dict)
    short_days: list[str] = field(default_factory=list)
    unread: dict[int, int] = field(default_factory=dict)
    kept_days: list[date] = field(default_factory=list)


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


def write_block(writer: Writer, job: IngestJob) -> IngestResult:
    """Read the changed days of a block of a band and write a shard for each tile with land."""
    product = PRODUCTS[job.product]
    read = _read(product, job)
    fresh = _without_loss(job, read)
    land = open_cube(job.static, chunks=None)["land"]
    published = None
    if len(fresh) < job.n_days:
        published = open_cube(job.cube, snapshot=job.snapshot, chunks=None)
    corner = writer.region
    layered = np.array([field.layer is not None for field in product.fields])
    for tile in job.tiles:
        place = writer.select(tile, job.block)
        sea = land[corner.local(tile)].values == 0
        here = job.band.local(tile)
        arrays: dict[str, NDArray[Any]] = {
            "soil_moisture": read.values[:, layered, *here],
            "n_steps": read.n_steps[:, *here],
            "forcing": read.values[:, ~layered, *here],
        }
        for name, values in arrays.items():
            if name == "forcing" and layered.all():
                continue
            whole = _whole(job, fresh, tile, name, values, published)
            whole[..., sea] = 0 if name == "n_steps" else np.nan
            writer.write(name, place, whole)
    return _result(job, fresh, read)


def _read(product: Product, job: IngestJob) -> DailyFields:
    """Daily fields from the first to the last of the days that are made from granules."""
    first, n_days = job.days[0] + job.fresh[0], job.fresh[-1] - job.fresh[0] + 1
    rows, columns = job.band.rows, job.band.columns
    try:
        return product.read_daily(
            job.granules, day_at(first), n_days, rows, columns, min_fraction=job.min_fraction
        )
    except MissingVariableError as error:
        # Together with the days as published these granules are not all that there are: they are
        # set aside, as they would be if the whole block was read.
        if not job.made_before:
            raise
        aside = [SetAside(granule.url, error.reason) for granule in job.granules]
    nothing = product.read_daily([], day_at(first), n_days, rows, columns)
    nothing.set_aside += aside
    return nothing


def _read_hours(job: IngestJob, read: DailyFields) -> dict[int, int]:
    """Hours of which steps were read, by position of the days that are made from granules."""
    return {day: int(read.hours[day - job.fresh[0]]) for day in job.fresh}


def _without_loss(job: IngestJob, read: DailyFields) -> tuple[int, ...]:
    """The fresh days without those that would lose an hour: a granule of theirs is unreadable."""
    hours = _read_hours(job, read)
    return tuple(day for day in job.fresh if not job.held[day] & ~hours[day])


def _whole(
    job: IngestJob,
    fresh: tuple[int, ...],
    tile: Tile,
    name: str,
    read: NDArray[Any],
    published: xr.Dataset | None,
) -> NDArray[Any]:
    """All days of the block: those that were read, the others as published."""
    if published is None:
        return np.ascontiguousarray(read)
    whole = np.zeros((job.n_days, *read.shape[1:]), read.dtype)
    whole[list(fresh)] = read[[day - job.fresh[0] for day in fresh]]
    kept = [day for day in range(job.n_days) if day not in fresh]
    first = job.days[0]
    try:
        held = read_tile(published, name, tile, (first, first + kept[-1] + 1))
    except ShardError as error:
        last = day_at(first + kept[-1])
        raise ShardError(
            f"{error}. It also holds days that are not made anew, such as those whose granules "
            "are gone or can't be read. If it is damaged (`deepprofile verify --repair` notes "
            f"that), bring back the granules of {day_at(first)} to {last} and run the stage "
            "again; nothing of it was overwritten"
        ) from error
    whole[kept] = held[kept]
    return whole


def _result(job: IngestJob, fresh: tuple[int, ...], fields: DailyFields) -> IngestResult:
    hours = _read_hours(job, fields)
    holds = [hours[day] if day in fresh else job.held[day] for day in range(job.n_days)]
    unread = [listed & ~held for listed, held in zip(job.listed, holds, strict=True)]
    counts = {name: count for name, count in fields.out_of_range.items() if count}
    short = [
        f"{day} ({steps} steps)"
        for day, steps in fields.short_days
        if job.period[0] <= day_index(day) < job.period[1] and day_index(day) - job.days[0] in fresh
    ]
    return IngestResult(
        fields.set_aside,
        counts,
        short,
        {day: hours for day, hours in enumerate(unread) if hours},
        [day_at(job.days[0] + day) for day in job.fresh if day not in fresh],
    )
