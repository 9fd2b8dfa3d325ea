"""Stage predict: profiles of every land cell on every day with a full window of forcing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepprofile.model.flags import Flag, flag_attributes
from deepprofile.model.io import read_description, resident
from deepprofile.model.prediction import margins, predict_days
from deepprofile.recipe import Recipe
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.publication import publish_stage
from deepprofile.store import (
    Template,
    Writer,
    coefficients_template,
    done_jobs,
    history,
    open_cube,
    read_tile,
)
from deepprofile.store.layout import BLOCK_DAYS, TILE_COLUMNS, TILE_ROWS, Block, Tile
from deepprofile.store.repository import NotACubeError

STAGE = "predict"
SPAN_BLOCKS = 6
"""Blocks that one job predicts: a year of forcing is read before the first of their days."""


@dataclass(frozen=True)
class PredictJob:
    """A tile and a span of blocks.

    Attributes:
        tile: the tile.
        blocks: the blocks, consecutive.
        n_days: length of the series of forcing; the last block may be cut short.
        model: URL of the model.
        fingerprint: of the model; a job refuses another one.
        smap_l4: URL of the cube with the forcing.
        static: URL of the cube with land mask and auxiliary features.
        max_gap: gaps of at most so many days are filled.
    """

    tile: Tile
    blocks: tuple[Block, ...]
    n_days: int
    model: str
    fingerprint: str
    smap_l4: str
    static: str
    max_gap: int

    @property
    def key(self) -> str:
        """Name in the ledger; it changes when the last block grows."""
        return f"tile {self.tile.row} {self.tile.column} days {self.days[0]} to {self.days[1]}"

    @property
    def days(self) -> tuple[int, int]:
        """First day index and the one after the last."""
        return self.blocks[0].days.start, min(self.blocks[-1].days.stop, self.n_days)


def run(context: Context) -> str:
    """Predict what is not there yet with the model of this recipe."""
    paths, recipe = context.paths, context.recipe
    description = read_description(paths.model)
    fingerprint = str(description["fingerprint"])
    _refuse_other_model(paths.coefficients, fingerprint)
    n_days = int(open_cube(paths.product("smap_l4"), chunks=None).sizes["time"])
    matching = {"model": fingerprint, "forcing": history(paths.product("smap_l4"))[0].snapshot_id}
    done = done_jobs(paths.coefficients, STAGE, matching)
    jobs = [job for job in _jobs(context, n_days, fingerprint) if job.key not in done]
    if not jobs:
        return f"every day has its profile in {paths.coefficients} already"
    outcome = publish_stage(
        context,
        paths.coefficients,
        _template(recipe),
        write_profiles,
        jobs,
        stage=STAGE,
        what="profiles",
        n_days=n_days - _first_block(recipe).days.start,
        metadata=matching,
    )
    return _describe([counts for _, counts in outcome.results]) + f" in {paths.coefficients}"


def plan(recipe: Recipe) -> Plan:
    """Reads each day of forcing once and a year of halo a span; writes the coefficients."""
    n_days, n_tiles = recipe.period.days.stop, len(list(recipe.tiles.tiles()))
    blocks = -(-n_days // BLOCK_DAYS) - _first_block(recipe).index
    spans = max(0, -(-blocks // SPAN_BLOCKS))
    day = 39 * TILE_ROWS * TILE_COLUMNS * 4
    halo = sum(margins(recipe.training.window, recipe.sample.max_gap_days))
    read = n_tiles * (blocks * BLOCK_DAYS + spans * halo) * day
    written = n_tiles * blocks * BLOCK_DAYS * TILE_ROWS * TILE_COLUMNS * 41
    memory = 3 * (SPAN_BLOCKS * BLOCK_DAYS + halo) * day
    return Plan(n_tiles * spans, read, written, memory, "tiles without land are left out")


def write_profiles(writer: Writer, job: PredictJob) -> dict[int, int]:
    """Predict a tile over a span of blocks; returns how often each flag occurs."""
    model = resident(job.model, job.fingerprint)
    before, after = margins(model.config.window, job.max_gap)
    start, stop = job.days
    first, last = max(0, start - before), min(job.n_days, stop + after)
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


def _jobs(context: Context, n_days: int, fingerprint: str) -> list[PredictJob]:
    paths, recipe = context.paths, context.recipe
    land = open_cube(paths.static, chunks=None)["land"].values == 1
    indices = range(_first_block(recipe).index, -(-n_days // BLOCK_DAYS))
    spans = [indices[i : i + SPAN_BLOCKS] for i in range(0, len(indices), SPAN_BLOCKS)]
    return [
        PredictJob(
            tile,
            tuple(Block(index) for index in span),
            n_days,
            paths.model,
            fingerprint,
            paths.product("smap_l4"),
            paths.static,
            recipe.sample.max_gap_days,
        )
        for span in spans
        for tile in recipe.tiles.land_tiles(land)
    ]


def _refuse_other_model(url: str, fingerprint: str) -> None:
    try:
        commits = history(url)
    except NotACubeError:
        return
    others = {str(c.metadata["model"]) for c in commits if "model" in c.metadata} - {fingerprint}
    if others:
        raise StageError(
            f"{url}: holds profiles of the model {', '.join(sorted(others))}, but the recipe's "
            f"model is {fingerprint}. Profiles of two models don't belong in one cube: remove the "
            "cube, or give the recipe another root."
        )


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
