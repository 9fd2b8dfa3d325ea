"""The static cube: which cells are land, and the auxiliary features of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.products import Granule, SmapL4
from deepprofile.products.files import file_name, file_tags, find_files, tags_text
from deepprofile.products.terrain import terrain_features
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Context, StageError
from deepprofile.stages.publication import (
    fingerprint_of,
    outstanding,
    publish_stage,
    require_all,
    to_retry,
)
from deepprofile.store import (
    SinglePiece,
    Writer,
    done_jobs,
    open_cube,
    planned_head,
    static_template,
)
from deepprofile.store.layout import Region, day_at
from deepprofile.store.ledger import Commit, commits_of, done_in

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
        return _name_of(self.band)


def _name_of(band: Region) -> str:
    return "rows {}-{}".format(*band.tile_rows)


def publish_static(context: Context) -> NDArray[np.bool_]:
    """Write the static cube where it is not there yet.

    Without an elevation model in the recipe the cube that is there is taken as it is.

    Returns:
        The land mask of the recipe's region.

    Raises:
        PublicationError: if no cell is land.
        StageError: if a DEM is not there or a job failed.
    """
    url = context.paths.static
    if context.recipe.terrain is None:
        if not is_complete(context):
            raise StageError(
                f"{url}: land mask and terrain of the region are not all there, and the recipe "
                "names no elevation model to make them from. For an archive of a part of the globe "
                "give its region in this recipe too; otherwise give terrain.urls."
            )
        return read_land(url)
    planned_at, commits = planned_head(url), commits_of(url, STAGE)
    sources = _sources(context)
    done, only = done_in(commits), to_retry(context, url, STAGE)
    jobs = outstanding(_jobs(context, sources, commits), done, only)
    if jobs:
        outcome = publish_stage(
            context,
            url,
            static_template(context.recipe.tiles),
            write_static,
            jobs,
            stage=STAGE,
            what="land mask and terrain",
            planned_at=planned_at,
            metadata={"sources": sources.granules},
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


def is_complete(context: Context) -> bool:
    """Whether the static cube holds all bands of the recipe's region, whatever it is made from."""
    return set(done_jobs(context.paths.static, STAGE)) >= {
        _name_of(band) for band in bands(context.recipe.tiles)
    }


def read_land(url: str) -> NDArray[np.bool_]:
    """The land mask of a static cube, in the shape of its region."""
    return np.asarray(open_cube(url, chunks=None)["land"].values == 1)


@dataclass(frozen=True)
class _Sources:
    """What the static cube is made from: the first granules of the archive and the DEMs.

    Attributes:
        sample: the granules.
        granules: name and tag of each.
        terrain: URLs of the DEMs.
        relief: name and tag of the files of each DEM.
        present: names of all files of the archive.
    """

    sample: tuple[Granule, ...]
    granules: list[str]
    terrain: tuple[str, ...]
    relief: list[str]
    present: frozenset[str]


def _sources(context: Context) -> _Sources:
    recipe = context.recipe
    source, days = recipe.products["smap_l4"].url, recipe.period.days
    terrain = tuple(recipe.terrain.urls if recipe.terrain else ())
    granules, _ = SmapL4().granules(source, day_at(days.start), day_at(days.stop))
    sample, tags = tuple(granules[:SAMPLE_GRANULES]), file_tags(source)
    named = [f"{file_name(granule.url)} {tags.get(granule.url, '')}" for granule in sample]
    present = frozenset(map(file_name, tags))
    return _Sources(sample, named, terrain, [_relief(url) for url in terrain], present)


def _jobs(context: Context, sources: _Sources, commits: Sequence[Commit]) -> list[StaticJob]:
    """One job a band.

    A cube made from granules that are gone by now, and from the same DEMs, is done: an archive
    that deletes what is old must not change the land mask.
    """
    made_from = [c.metadata["sources"] for c in commits if "sources" in c.metadata][-1:]
    granules = sources.granules
    for before in made_from:
        gone = {text.split(" ", 1)[0] for text in before} - sources.present
        own = fingerprint_of([*before, *sources.relief])
        if gone and own in done_in(commits).values():
            granules = list(before)
    fingerprint = fingerprint_of([*granules, *sources.relief])
    return [
        StaticJob(band, sources.sample, sources.terrain, fingerprint)
        for band in bands(context.recipe.tiles)
    ]


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
    if not find_files(url):
        raise StageError(
            f"terrain.urls: there is no elevation model at {url}. Expected a netCDF file with "
            "elevation(latitude, longitude) in metres."
        )
    return tags_text(url)


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
