"""The static cube: which cells are land, and the auxiliary features of each."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.products import Granule, SmapL4
from deepprofile.products.files import file_name, file_tags
from deepprofile.products.terrain import terrain_features
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Context, StageError
from deepprofile.stages.publication import (
    fingerprint_of,
    outstanding,
    publish_stage,
    require_all,
)
from deepprofile.store import SinglePiece, Writer, done_jobs, open_cube, static_template
from deepprofile.store.layout import Region, day_at

STAGE = "static"
SAMPLE_GRANULES = 8
"""Granules of SMAP L4 in which a cell must have a value once to count as land."""


@dataclass(frozen=True)
class StaticJob(SinglePiece):
    """A band of tile rows.

    Attributes:
        band: the tile rows.
        granules: granules of SMAP L4 that show which cells are land.
        terrain: URLs of the DEMs, the preferred first.
        fingerprint: of these files.
    """

    band: Region
    granules: tuple[Granule, ...]
    terrain: tuple[str, ...]
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return "rows {}-{}".format(*self.band.tile_rows)


def publish_static(context: Context) -> NDArray[np.bool_]:
    """Write the static cube where it is not there yet.

    Returns:
        The land mask of the recipe's region.

    Raises:
        PublicationError: if no cell is land.
        StageError: if a DEM is not there or a job failed.
    """
    url = context.paths.static
    jobs = outstanding(_jobs(context), done_jobs(url, STAGE))
    if jobs:
        outcome = publish_stage(
            context,
            url,
            static_template(context.recipe.tiles),
            write_static,
            jobs,
            stage=STAGE,
            what="land mask and terrain",
            audit=_no_land,
        )
        require_all(STAGE, outcome.failed)
        for job, without in outcome.results:
            if without:
                context.console.print(
                    f"  [yellow]no elevation[/yellow] in {without} land cells of tile rows "
                    f"{job.band.tile_rows}: they get no profile. Add a DEM that covers them to "
                    "terrain.urls.",
                    highlight=False,
                )
    return read_land(url)


def read_land(url: str) -> NDArray[np.bool_]:
    """The land mask of a static cube, in the shape of its region."""
    return np.asarray(open_cube(url, chunks=None)["land"].values == 1)


def _jobs(context: Context) -> list[StaticJob]:
    """One job a band; the first granules of the archive and the DEMs decide what it writes."""
    recipe = context.recipe
    source, days = recipe.products["smap_l4"].url, recipe.period.days
    granules, _ = SmapL4().granules(source, day_at(days.start), day_at(days.stop))
    sample, terrain = tuple(granules[:SAMPLE_GRANULES]), tuple(recipe.terrain.urls)
    tags = file_tags(source)
    names = [file_name(granule.url) for granule in sample]
    relief = [_relief(url) for url in terrain]
    fingerprint = fingerprint_of([*(f"{name} {tags[name]}" for name in names), *relief])
    return [StaticJob(band, sample, terrain, fingerprint) for band in bands(recipe.tiles)]


def _no_land(cube: xr.Dataset) -> list[str]:
    """What is wrong with a static cube as a whole."""
    if (cube["land"].values == 1).any():
        return []
    return [
        f"no cell of the region is land in the first {SAMPLE_GRANULES} granules of SMAP L4. "
        "Check region and products.smap_l4.url in the recipe, and whether these granules can "
        "be read."
    ]


def _relief(url: str) -> str:
    tags = file_tags(url)
    if not tags:
        raise StageError(
            f"terrain.urls: there is no elevation model at {url}. Expected a netCDF file with "
            "elevation(latitude, longitude) in metres."
        )
    return str(sorted(tags.items()))


def write_static(writer: Writer, job: StaticJob) -> int:
    """Write land mask and features of a band; returns the number of land cells without them."""
    rows, columns = job.band.rows, job.band.columns
    land = land_mask(job.granules, rows, columns)
    features = terrain_features(job.terrain, rows, columns).astype(np.float32)
    for tile in job.band.tiles():
        local = job.band.local(tile)
        place = writer.select(tile)
        writer.write("land", place, land[local].astype(np.uint8))
        writer.write("auxiliary", place, np.ascontiguousarray(features[:, *local]))
    return int((land & np.isnan(features).any(axis=0)).sum())


def land_mask(granules: tuple[Granule, ...], rows: slice, columns: slice) -> NDArray[np.bool_]:
    """Cells in which some granule of SMAP L4 has a value of surface soil moisture."""
    product = SmapL4(fields=tuple(f for f in SmapL4().fields if f.layer is not None))
    first = granules[0].start.astype("datetime64[D]").item()
    last = granules[-1].last.astype("datetime64[D]").item()
    fields = product.read_daily(
        granules, first, (last - first).days + 1, rows, columns, min_fraction=0.0
    )
    return np.asarray((fields.n_steps > 0).any(axis=0))
