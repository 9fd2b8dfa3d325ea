"""Stage predict: profiles of every land cell on every day with a full window of forcing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepprofile.model.flags import Flag, flag_attributes
from deepprofile.model.io import read_description, resident
from deepprofile.model.prediction import margins, predict_days
from deepprofile.recipe import Recipe
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.ingest import STAGE as INGEST
from deepprofile.stages.ingest import place_of
from deepprofile.stages.models import refuse_other_model
from deepprofile.stages.publication import (
    fingerprint_of,
    outstanding,
    publish_stage,
    require_all,
)
from deepprofile.stages.static import read_land
from deepprofile.store import (
    JobFailure,
    Template,
    Writer,
    coefficients_template,
    done_jobs,
    head,
    open_cube,
    read_tile,
)
from deepprofile.store.layout import (
    BLOCK_DAYS,
    TILE_COLUMNS,
    TILE_ROWS,
    Block,
    Tile,
    blocks,
    day_at,
)

STAGE = "predict"
SPAN_BLOCKS = 6
"""Blocks that one job predicts: a year of forcing is read before the first of their days."""

TORCH_MEMORY = 450_000_000
"""Memory of a worker in bytes once torch and the model are loaded."""


@dataclass(frozen=True)
class PredictJob:
    """A tile and a span of blocks.

    Attributes:
        tile: the tile.
        blocks: the blocks, consecutive.
        period: first day index of the forcing that is used and the one after the last.
        model: URL of the model.
        model_fingerprint: of the model; a job refuses another one.
        smap_l4: URL of the cube with the forcing.
        static: URL of the cube with land mask and auxiliary features.
        max_gap: gaps of at most so many days are filled.
        fingerprint: of the model and of the blocks of forcing that are read.
    """

    tile: Tile
    blocks: tuple[Block, ...]
    period: tuple[int, int]
    model: str
    model_fingerprint: str
    smap_l4: str
    static: str
    max_gap: int
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        first, last = self.blocks[0].index, self.blocks[-1].index
        return f"tile {self.tile.row} {self.tile.column} blocks {first} to {last}"

    @property
    def days(self) -> tuple[int, int]:
        """First day index that is predicted and the one after the last."""
        return self.blocks[0].days.start, min(self.blocks[-1].days.stop, self.period[1])


def run(context: Context) -> str:
    """Predict what is not there yet with the model of this recipe, a span of blocks a commit."""
    url = context.paths.coefficients
    fingerprint = str(read_description(context.paths.model)["fingerprint"])
    refuse_other_model(url, fingerprint)
    jobs = outstanding(_jobs(context, fingerprint), done_jobs(url, STAGE))
    counts: list[dict[int, int]] = []
    failed: list[JobFailure] = []
    for span in dict.fromkeys(job.blocks for job in jobs):
        group = [job for job in jobs if job.blocks == span]
        outcome = publish_stage(
            context,
            url,
            _template(context.recipe),
            write_profiles,
            group,
            stage=STAGE,
            what=f"profiles {day_at(group[0].days[0])} to {day_at(group[0].days[1] - 1)}",
            n_days=group[0].days[1] - _first_block(context.recipe).days.start,
            metadata={"model": fingerprint},
        )
        counts += [result for _, result in outcome.results]
        failed += outcome.failed
    require_all(STAGE, failed)
    return (
        f"{_describe(counts)} in {url}" if jobs else f"every day has its profile in {url} already"
    )


def plan(recipe: Recipe) -> Plan:
    """Reads each day of forcing once and a year of halo a span; writes the coefficients."""
    n_days, n_tiles = recipe.period.days.stop, len(list(recipe.tiles.tiles()))
    blocks = -(-n_days // BLOCK_DAYS) - _first_block(recipe).index
    spans = max(0, -(-blocks // SPAN_BLOCKS))
    day = 39 * TILE_ROWS * TILE_COLUMNS * 4
    halo = sum(margins(recipe.training.window, recipe.sample.max_gap_days))
    read = n_tiles * (blocks * BLOCK_DAYS + spans * halo) * day
    written = n_tiles * blocks * BLOCK_DAYS * TILE_ROWS * TILE_COLUMNS * 41
    memory = TORCH_MEMORY + 4 * (SPAN_BLOCKS * BLOCK_DAYS + halo) * day
    return Plan(n_tiles * spans, read, written, memory, "tiles without land are left out")


def write_profiles(writer: Writer, job: PredictJob) -> dict[int, int]:
    """Predict a tile over a span of blocks; returns how often each flag occurs."""
    model = resident(job.model, job.model_fingerprint)
    before, after = margins(model.config.window, job.max_gap)
    start, stop = job.days
    first, last = max(job.period[0], start - before), min(job.period[1], stop + after)
    static = open_cube(job.static, chunks=None)
    auxiliary = read_tile(static, "auxiliary", job.tile)
    land = (read_tile(static, "land", job.tile) == 1) & np.isfinite(auxiliary).all(axis=0)
    forcing = read_tile(job.smap_l4, "forcing", job.tile, (first, last))
    span = slice(start - first, stop - first)
    profiles = predict_days(model, forcing, auxiliary, land, span, job.max_gap)
    for block in job.blocks:
        part = slice(block.days.start - start, min(block.days.stop, stop) - start)
        place = writer.select(job.tile, block)
        writer.write("coefficients", place, np.ascontiguousarray(profiles.coefficients[part]))
        writer.write("flag", place, np.ascontiguousarray(profiles.flag[part]))
    values, counts = np.unique(profiles.flag, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _first_block(recipe: Recipe) -> Block:
    """Block with the first day that has a full window."""
    first = recipe.period.days.start + recipe.training.window - 1
    if first >= recipe.period.days.stop:
        raise StageError(
            f"the period has {recipe.period.days.stop - recipe.period.days.start} days, but a "
            f"profile needs {recipe.training.window} days of forcing. Extend period."
        )
    return Block(first // BLOCK_DAYS)


def _template(recipe: Recipe) -> Template:
    return coefficients_template(
        recipe.tiles,
        flag_attributes=flag_attributes(),
        n_coefficients=recipe.training.n_coefficients,
        first_block=_first_block(recipe).index,
    )


def _jobs(context: Context, fingerprint: str) -> list[PredictJob]:
    paths, recipe = context.paths, context.recipe
    land = read_land(paths.static)
    held = int(open_cube(paths.product("smap_l4"), chunks=None).sizes["time"])
    period = recipe.period.days.start, min(recipe.period.days.stop, held)
    indices = range(_first_block(recipe).index, -(-period[1] // BLOCK_DAYS))
    spans = [indices[i : i + SPAN_BLOCKS] for i in range(0, len(indices), SPAN_BLOCKS)]
    inputs = _Inputs(context, fingerprint, period)
    return [
        PredictJob(
            tile,
            tuple(Block(index) for index in span),
            period,
            paths.model,
            fingerprint,
            paths.product("smap_l4"),
            paths.static,
            recipe.sample.max_gap_days,
            inputs.of(tile, span),
        )
        for span in spans
        for tile in recipe.tiles.land_tiles(land)
    ]


class _Inputs:
    """Fingerprints of what a job reads: a new or replaced day changes those of its windows only."""

    def __init__(self, context: Context, model: str, period: tuple[int, int]) -> None:
        recipe, paths = context.recipe, context.paths
        gap = recipe.sample.max_gap_days
        self._forcing = done_jobs(paths.product("smap_l4"), INGEST)
        self._bands = list(bands(recipe.tiles))
        self._margins = margins(recipe.training.window, gap)
        self._period = period
        self._settings = [model, head(paths.static), str(gap), str(period[0])]

    def of(self, tile: Tile, span: range) -> str:
        """Fingerprint of a tile and a span of blocks."""
        before, after = self._margins
        first = max(self._period[0], span[0] * BLOCK_DAYS - before)
        last = min(self._period[1], (span[-1] + 1) * BLOCK_DAYS + after)
        band = next(band for band in self._bands if tile in band)
        read = [self._forcing.get(place_of(block, band), "") for block in blocks(first, last)]
        return fingerprint_of([*self._settings, str(last), *read])


def _describe(results: Sequence[dict[int, int]]) -> str:
    counts: Counter[int] = Counter()
    for result in results:
        counts.update(result)
    land = sum(count for value, count in counts.items() if value != Flag.NOT_LAND)
    named = ", ".join(
        f"{count:,} {Flag(value).name.lower().replace('_', ' ')}"
        for value, count in sorted(counts.items())
        if value != Flag.NOT_LAND
    )
    return f"{land:,} land cell-days: {named}"
