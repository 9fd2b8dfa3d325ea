"""Extraction of the samples' series: what it reads, what it needs, and reading alone beside it.

    python benchmarks/extraction.py
    python benchmarks/extraction.py --tiles 4 --blocks 23 --turns 5

Makes cubes of three products over some tiles in a temporary folder, 59 % of them land, with values
that pack like real ones, and draws cells at the density of the paper's 3,538 cells in 828 tiles
with land. A turn runs the stage's own jobs in this process, from the first shard read to the series
written; and reads and decodes the same shards and drops them, with as many threads. Both by turns,
so that a busy machine slows down both; the ratio of the medians counts. Then the whole stage runs
once on a worker a core. At the end: what the paper's ten years of the globe would take, by the
bytes read, so that what each job has once counts as often as here.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from statistics import median
from time import perf_counter, process_time

import numpy as np
from distributed import Client
from rich.console import Console

from deepprofile import grid
from deepprofile.benchmark import committed_writer, make_cube, smooth_fields
from deepprofile.cluster import ENVIRONMENT, connected
from deepprofile.collocation import Flag, flag_attributes
from deepprofile.products import PRODUCTS
from deepprofile.recipe import Recipe
from deepprofile.stages import Context, sample
from deepprofile.stages.extract import Extracted, SampleJob, write_series
from deepprofile.stages.ingest_jobs import product_template
from deepprofile.stages.stations import prepare_ground_truth
from deepprofile.store import (
    Region,
    collocation_template,
    open_cube,
    read_tile,
    static_template,
)
from deepprofile.store.kinds import FEATURES, NOT_PROCESSED
from deepprofile.store.layout import BLOCK_DAYS, TILE_COLUMNS, TILE_ROWS, Block, day_at
from deepprofile.store.repository import MAIN, open_repository
from deepprofile.store.writer import IN_FLIGHT, Writer

NAMES = ("smap_l4", "era5_land", "gldas")
LAND_COLUMNS = 38
ROW, COLUMN = 5, 20
"""The first tile."""
DISTINCT = 4
"""Blocks that differ; they come over and over."""
PAPER_CELLS, PAPER_TILES, PAPER_DAYS, PAPER_BLOCKS = 3538, 828, 3623, 114
WINDOW = 360


def make_world(root: Path, n_tiles: int, n_blocks: int, client: Client | None) -> Context:
    """Cubes of the products, features and weights below ``root``, and the context of a recipe."""
    region = Region((ROW, ROW + 1), (COLUMN, COLUMN + n_tiles))
    longitude = grid.longitudes()[region.columns][[1, -2]].tolist()
    latitude = grid.latitudes()[region.rows][[-2, 1]].tolist()
    recipe = Recipe.model_validate(
        {
            "name": "benchmark",
            "root": str(root),
            "period": {"end": str(day_at(n_blocks * BLOCK_DAYS - 1))},
            "region": dict(
                zip(("west", "east", "south", "north"), longitude + latitude, strict=True)
            ),
            "products": {name: {"url": "none"} for name in NAMES},
            "terrain": {"urls": ["none"]},
            "sample": {
                "other_cells": round(n_tiles * PAPER_CELLS / PAPER_TILES),
                "other_outside": None,
            },
        }
    )
    assert recipe.tiles == region
    context = Context(recipe, client, Console(quiet=True))  # type: ignore[arg-type]
    for seed, name in enumerate(NAMES):
        _write_product(context, name, n_blocks, seed)
    _write_weights(context)
    return context


def _write_product(context: Context, name: str, n_blocks: int, seed: int) -> None:
    template = product_template(PRODUCTS[name], context.recipe.tiles)
    cube = make_cube(context.paths.product(name), template, n_blocks * BLOCK_DAYS)
    sizes = {"soil_moisture": len(PRODUCTS[name].layers)}
    if name == "smap_l4":
        sizes["forcing"] = sum(field.layer is None for field in PRODUCTS[name].fields)
    with committed_writer(cube) as writer:
        for array, size in sizes.items():
            shards = [smooth_fields(size, 9 * seed + i, LAND_COLUMNS) for i in range(DISTINCT)]
            for tile in context.recipe.tiles.tiles():
                for index in range(n_blocks):
                    writer.write(array, writer.select(tile, Block(index)), shards[index % DISTINCT])


def _write_weights(context: Context) -> None:
    region, paths = context.recipe.tiles, context.paths
    land = np.arange(region.shape[1]) % TILE_COLUMNS < LAND_COLUMNS
    weight = np.random.default_rng(0).dirichlet((1, 1, 1), region.shape)
    flag = np.where(land, np.uint8(Flag.VALID), np.uint8(NOT_PROCESSED))
    made = collocation_template(region, NAMES, flag_attributes=flag_attributes(NAMES))
    with committed_writer(make_cube(paths.collocation, made, 0)) as writer:
        writer.write("weight", {}, np.moveaxis(weight, -1, 0).astype(np.float32))
        writer.write("flag", {}, np.broadcast_to(flag, (TILE_ROWS, len(land))).copy())
    with committed_writer(make_cube(paths.static, static_template(region), 0)) as writer:
        writer.write("auxiliary", {}, np.ones((len(FEATURES), *region.shape), np.float32))


def run_jobs(context: Context, jobs: Sequence[SampleJob]) -> list[Extracted]:
    """The jobs, one after the other, as a worker runs them; their transaction is left out."""
    writer = Writer(open_repository(context.paths.samples).writable_session(MAIN))
    return [write_series(writer, job) for job in jobs]


def read_shards(jobs: Sequence[SampleJob]) -> None:
    """Read and decode the shards of some jobs and drop them."""
    for job in jobs:
        sources = [(job.smap_l4, "forcing"), *((u, "soil_moisture") for u in job.cubes.values())]
        opened = {url: open_cube(url, chunks=None) for url in dict(sources)}
        blocks = [Block(index).days for index in range(job.days[1] // BLOCK_DAYS)]
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for done in [
                pool.submit(read_tile, opened[url], array, job.tile, (days.start, days.stop))
                for url, array in sources
                for days in blocks
            ]:
                done.result()


def stored_bytes(context: Context) -> int:
    """Bytes of the products' shards on disk; all are read."""
    folders = [Path(context.paths.product(name)) / "chunks" for name in NAMES]
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))


def prepared_jobs(context: Context) -> list[SampleJob]:
    """The stage's own choice of cells and jobs, and an empty cube of samples for them."""
    cells = sample._cells(context, prepare_ground_truth(context))
    make_cube(
        context.paths.samples, sample._template(context, cells), context.recipe.period.days.stop
    )
    return sample._jobs(context, cells)


def timed(
    turns: int, sides: dict[str, Callable[[], object]]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds and core seconds of some functions that take turns, each after a run for itself."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for function in sides.values():
        function()
    for _ in range(turns):
        for name, function in sides.items():
            start, used = perf_counter(), process_time()
            function()
            wall[name].append(perf_counter() - start)
            cpu[name].append(process_time() - used)
    return wall, cpu


def print_globe(raw: int, stored: int, jobs_raw: int, core_seconds: float, seconds: float) -> None:
    """What the paper's samples would take, in proportion to the bytes of the shards read."""
    whole = raw * PAPER_TILES * PAPER_BLOCKS // jobs_raw
    factor = whole / raw
    needed = PAPER_CELLS * PAPER_DAYS * _values_a_day() * 4
    samples = PAPER_CELLS * (PAPER_DAYS - WINDOW + 1)
    print(
        f"globe: {PAPER_CELLS:,} cells in {PAPER_TILES} tiles, {PAPER_DAYS:,} days, at most "
        f"{samples / 1e6:.2f} million samples"
    )
    print(
        f"  reads {stored * factor / 1e12:.2f} TB stored, {whole / 1e12:.2f} TB raw; needs "
        f"{needed / 1e9:.2f} GB: {whole / needed:.0f} times as much is read as is needed"
    )
    print(
        f"  {core_seconds * factor / 3600:.1f} core hours; {seconds * factor / 3600:.1f} hours on "
        "this machine as busy as now"
    )


def _values_a_day() -> int:
    return sum(len(PRODUCTS[name].layers) for name in NAMES) + sum(
        field.layer is None for field in PRODUCTS["smap_l4"].fields
    )


def main() -> None:
    """Make the cubes, take turns and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=3, help="tiles with land")
    parser.add_argument("--blocks", type=int, default=23, help="blocks of 32 days")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", help="where the cubes are made; the system's own by default")
    given = parser.parse_args()
    worker = {name: str(value) for name, value in ENVIRONMENT.items()}
    if any(os.environ.get(name) != value for name, value in worker.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **worker})
    with tempfile.TemporaryDirectory(prefix="deepprofile-benchmark-", dir=given.folder) as folder:
        context = make_world(Path(folder), given.tiles, given.blocks, None)
        jobs = prepared_jobs(context)
        moved = run_jobs(context, jobs)
        raw, written = (sum(part) for part in zip(*moved, strict=True))
        stored = stored_bytes(context)
        wall, cpu = timed(
            given.turns,
            {"shards alone": lambda: read_shards(jobs), "jobs": lambda: run_jobs(context, jobs)},
        )
        rmtree(context.paths.samples)
        with connected() as client:
            workers = len(client.scheduler_info()["workers"])
            started = perf_counter()
            sample.run(Context(context.recipe, client, context.console))
            stage_seconds = perf_counter() - started
    n_cells = sum(len(job.rows) for job in jobs)
    print(
        f"{len(jobs)} tiles x {given.blocks} blocks, {n_cells} cells; {given.turns} turns, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"read {raw / 1e6:,.0f} MB raw, {stored / 1e6:,.0f} MB stored; needed and written "
        f"{written / 1e6:.2f} MB raw: {raw / written:.0f} times as much is read"
    )
    print("                median s   MB/s  least s   core s")
    for name in wall:
        seconds = median(wall[name])
        print(
            f"{name:16}{seconds:8.2f}{raw / seconds / 1e6:7.0f}{min(wall[name]):9.2f}"
            f"{median(cpu[name]):9.2f}"
        )
    for text, times in (("time", wall), ("core time", cpu)):
        alone, extracted = times["shards alone"], times["jobs"]
        print(
            f"ratio by {text}: {median(alone) / median(extracted):.0%} of medians, "
            f"{min(alone) / min(extracted):.0%} of the quickest turns"
        )
    print(f"the whole stage, {workers} workers: {stage_seconds:.1f} s")
    print_globe(raw, stored, len(jobs) * given.blocks, median(cpu["jobs"]), median(wall["jobs"]))


if __name__ == "__main__":
    main()
