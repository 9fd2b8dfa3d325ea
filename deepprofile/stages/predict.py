"""Stage predict: profiles of every land cell on every day with a full window of forcing.

Reading, computing and writing overlap by Dask's threads alone: of a worker with several, one
computes while others read, decode, pack and write; all of these release the interpreter's lock.
Processes overlap likewise, and a worker with a GPU lets one of its threads at a time use it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile.model.device import choose_device
from deepprofile.model.flags import Flag, flag_attributes
from deepprofile.model.io import resident
from deepprofile.model.prediction import Rectangle, margins
from deepprofile.model.streaming import Stretch, stream_profiles
from deepprofile.recipe import Recipe
from deepprofile.stages.context import Context, Plan
from deepprofile.stages.devices import on_gpus, worker_devices
from deepprofile.stages.extent import land_of
from deepprofile.stages.forcing import check_inputs
from deepprofile.stages.models import describe_model
from deepprofile.stages.publication import forget_unplanned, publish_stage, require_all
from deepprofile.stages.segments import LONGEST
from deepprofile.stages.spans import (
    PredictJob,
    first_block,
    job_size,
    make_jobs,
    n_variables,
    spans_of,
    stretch_of,
)
from deepprofile.stages.static import read_land
from deepprofile.store import (
    AllFailedError,
    JobFailure,
    Template,
    Writer,
    coefficients_template,
    done_jobs,
    open_cube,
    open_pinned,
    planned_head,
    read_tile,
    settings_of,
)
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS, Block, blocks, day_at

STAGE = "predict"


def run(context: Context, longest: int = LONGEST) -> str:
    """Predict what is not there yet with the model of this recipe, a span of blocks a commit.

    Args:
        context: the running recipe.
        longest: blocks that are computed together at most. With 1 each block has the same value to
            the last bit whatever it is made together with.
    """
    url, recipe = context.paths.coefficients, context.recipe
    description = describe_model(context.paths.model)
    check_inputs(context, description)
    devices = worker_devices(context)
    fingerprint, land = str(description["fingerprint"]), read_land(context.paths.static)
    planned_at = planned_head(url)
    groups = make_jobs(context, fingerprint, land, devices, done_jobs(url, STAGE), longest)
    forget_unplanned(url, STAGE, [job for group in groups for job in group])
    tiles, provenance = set(recipe.tiles.land_tiles(land)), _Settings(context, devices)
    metadata = {
        "model": fingerprint,
        "settings": provenance.own,
        "without_land": [f"{t.row} {t.column}" for t in recipe.tiles.tiles() if t not in tiles],
    }
    counts: list[dict[int, int]] = []
    failed: list[JobFailure] = []
    for group in groups:
        days = _days_of(recipe, group)
        try:
            with on_gpus(context):
                outcome = publish_stage(
                    context,
                    url,
                    _template(recipe),
                    write_profiles,
                    group,
                    stage=STAGE,
                    what=f"profiles {day_at(days.start)} to {day_at(days.stop - 1)}",
                    n_days=days.stop - first_block(recipe).days.start,
                    metadata=metadata,
                    summarise=provenance.with_new,
                    planned_at=planned_at,
                )
        except AllFailedError as error:
            failed += error.failed
            continue
        planned_at = outcome.snapshot_id
        counts += [result for _, result in outcome.results]
        failed += outcome.failed
    require_all(STAGE, failed)
    return f"{_describe(counts)} in {url}" if groups else _already(context)


class _Settings:
    """Settings of the profiles that a cube holds: a change of one may reach only some of them."""

    def __init__(self, context: Context, devices: Sequence[str]) -> None:
        recipe = context.recipe
        self.own = {
            "precision": recipe.predict.precision,
            "device": ", ".join(devices),
            "max_gap_days": str(recipe.sample.max_gap_days),
        }
        self._held = settings_of(context.paths.coefficients, STAGE)

    def with_new(self, results: Sequence[tuple[PredictJob, Any]]) -> dict[str, str]:
        """All values of each setting, once some jobs have written theirs."""
        for job, _ in results:
            self._held |= dict.fromkeys(job.entries, self.own)
        held = list(self._held.values())
        return {
            name: ", ".join(sorted({part[name] for part in held if name in part}))
            for name in self.own
        }


def _already(context: Context) -> str:
    """What there is when nothing was left to predict."""
    url, period = context.paths.coefficients, context.recipe.period
    last = open_cube(url, chunks=None)["time"].values[-1].astype("datetime64[D]").item()
    if last < period.end:
        return (
            f"every day has its profile up to {last}, the last with forcing, in {url} already; "
            f"the period goes on to {period.end}: run the stage ingest for more"
        )
    return f"every day has its profile in {url} already"


def plan(recipe: Recipe) -> Plan:
    """Reads each day of forcing once, and a window before each span; writes the coefficients."""
    land, days = land_of(recipe), recipe.period.days
    stretches = [
        stretch_of(recipe, span, (days.start, days.stop)) for span in spans_of(recipe, days.stop)
    ]
    needed = [stretch.needed(stretch.blocks) for stretch in stretches]
    n_read = sum(len(list(blocks(part.start, part.stop))) for part in needed)
    n_written = sum(len(stretch.blocks) for stretch in stretches)
    block = BLOCK_DAYS * TILE_CELLS
    read = land.tiles * n_read * block * 4 * n_variables()
    written = land.tiles * n_written * block * (4 * recipe.training.n_coefficients + 1)
    size, longest = job_size(recipe, TILE_CELLS), stretches[0]
    least = size.memory(longest, 1)
    most = size.memory(longest, min(LONGEST, len(longest.blocks)))
    note = (
        "at least the smaller memory, up to the larger where workers have it; the time is for the "
        "larger"
    )
    cell_days = land.cells * (days.stop - days.start - recipe.training.window + 1)
    last = stretches[-1].blocks[-1:]
    window = stretches[-1].needed(last)
    n_day = len(list(blocks(window.start, window.stop)))
    return Plan(
        land.tiles * len(stretches),
        read,
        written,
        least,
        note if most > least else "",
        {"engine": cell_days, "series": cell_days, "read": read, "write": written},
        size.worker_memory,
        most,
        append_read=land.tiles * n_day * block * 4 * n_variables(),
        append_written=written
        // n_written
        * (BLOCK_DAYS + recipe.sample.max_gap_days)
        // BLOCK_DAYS,
    )


def write_profiles(writer: Writer, job: PredictJob) -> dict[int, int]:
    """Predict a tile over a span of blocks; returns how often each flag occurs."""
    model = resident(job.model, job.model_fingerprint, choose_device(job.device))
    static = open_cube(job.static, chunks=None)
    land = read_tile(static, "land", job.tile) == 1
    rectangle = Rectangle(land, read_tile(static, "auxiliary", job.tile))
    cube = open_pinned(job.smap_l4, job.snapshot)
    stretch = Stretch(job.blocks, job.period, margins(model.config.window, job.max_gap), BLOCK_DAYS)

    def read(start: int, stop: int) -> NDArray[np.float32]:
        return read_tile(cube, "forcing", job.tile, (start, stop))

    counts: Counter[int] = Counter()
    for index, profiles in stream_profiles(
        model,
        rectangle,
        stretch,
        read,
        max_gap=job.max_gap,
        segment=job.segment,
        precision=job.precision,
    ):
        place = writer.select(job.tile, Block(index))
        writer.write("coefficients", place, profiles.coefficients)
        writer.write("flag", place, profiles.flag)
        counts.update(dict(enumerate(np.bincount(profiles.flag.ravel()).tolist())))
    return {value: count for value, count in counts.items() if count}


def _days_of(recipe: Recipe, jobs: Sequence[PredictJob]) -> slice:
    """Days from the first block of some jobs to their last."""
    span = range(min(job.blocks[0] for job in jobs), max(job.blocks[-1] for job in jobs) + 1)
    return stretch_of(recipe, span, jobs[0].period).days(span)


def _template(recipe: Recipe) -> Template:
    return coefficients_template(
        recipe.tiles,
        flag_attributes=flag_attributes(),
        n_coefficients=recipe.training.n_coefficients,
        first_block=first_block(recipe).index,
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
