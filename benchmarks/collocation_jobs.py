"""Collocation jobs against reading and decoding the same shards alone.

Run with ``python benchmarks/collocation.py jobs [years] [turns]``. It makes cubes of three products
over two tiles, 59 % of them land, with values as smooth as real ones. A turn runs the stage's own
jobs in this process, from the first shard that is read to the estimates and the stored statistics
that are written; and reads the same shards and drops them, with as many threads. Both in turn, so
that a busy machine slows down both; the ratio of the medians counts. Memory is allocated as in
the workers of `deepprofile.connect`.
"""

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from statistics import median
from time import perf_counter, process_time

import numpy as np
from rich.console import Console

from deepprofile.benchmark import committed_writer, make_cube, smooth_fields
from deepprofile.cluster import ENVIRONMENT
from deepprofile.products import PRODUCTS
from deepprofile.recipe import Recipe
from deepprofile.stages import Context, collocate
from deepprofile.stages.collocate_job import CollocateJob, write_estimates
from deepprofile.stages.ingest_jobs import product_template
from deepprofile.store import open_cube, read_tile, static_template
from deepprofile.store.layout import BLOCK_DAYS, TILE_COLUMNS, TILE_ROWS, Block, day_at
from deepprofile.store.repository import MAIN, open_repository
from deepprofile.store.writer import IN_FLIGHT, Writer

NAMES = ("smap_l4", "era5_land", "gldas")
LAND_COLUMNS = 38


def make_world(root: Path, n_blocks: int) -> Context:
    """Cubes of the products and the land mask below ``root``, and the context of a recipe."""
    recipe = Recipe.model_validate(
        {
            "name": "benchmark",
            "root": str(root),
            "period": {"end": str(day_at(n_blocks * BLOCK_DAYS - 1))},
            "region": {"west": 2.0, "south": 45.0, "east": 7.0, "north": 45.1},
            "products": {name: {"url": "none"} for name in NAMES},
            "terrain": {"urls": ["none"]},
        }
    )
    context = Context(recipe, None, Console(quiet=True))  # type: ignore[arg-type]
    for seed, name in enumerate(NAMES):
        _write_product(context, name, n_blocks, seed)
    land = np.zeros((TILE_ROWS, TILE_COLUMNS), np.uint8)
    land[:, :LAND_COLUMNS] = 1
    static = make_cube(context.paths.static, static_template(recipe.tiles), 0)
    with committed_writer(static) as writer:
        for tile in recipe.tiles.tiles():
            writer.write("land", writer.select(tile), land)
    return context


def _write_product(context: Context, name: str, n_blocks: int, seed: int) -> None:
    """Four different blocks of moisture, over and over."""
    template = product_template(PRODUCTS[name], context.recipe.tiles)
    cube = make_cube(context.paths.product(name), template, n_blocks * BLOCK_DAYS)
    n_layers = len(PRODUCTS[name].layers)
    signal = [smooth_fields(1, 10 + i, LAND_COLUMNS) for i in range(4)]
    own = [smooth_fields(n_layers, 100 * seed + i, LAND_COLUMNS) for i in range(4)]
    shards = [(0.25 * a + 0.02 * b).astype(np.float32) for a, b in zip(signal, own, strict=True)]
    with committed_writer(cube) as writer:
        for tile in context.recipe.tiles.tiles():
            for index in range(n_blocks):
                place = writer.select(tile, Block(index))
                writer.write("soil_moisture", place, shards[index % 4])


def run_jobs(context: Context, jobs: list[CollocateJob]) -> None:
    """The jobs of a run that finds nothing stored, one after the other, as a worker runs them.

    The driver's part, a transaction for all tiles, is left out: two tiles would bear all of it.
    """
    rmtree(context.paths.collocation_parts, ignore_errors=True)
    repository = open_repository(context.paths.collocation)
    for job in jobs:
        write_estimates(Writer(repository.writable_session(MAIN)), job)


def read_shards(jobs: list[CollocateJob]) -> int:
    """Read and decode the shards of some jobs; returns their raw bytes."""
    total = 0
    for job in jobs:
        cubes = [open_cube(url, chunks=None) for url in job.cubes.values()]
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            reads = [
                pool.submit(
                    lambda cube, days, tile: read_tile(cube, "soil_moisture", tile, days).nbytes,
                    cube,
                    block.days,
                    job.tile,
                )
                for block in job.blocks
                for cube in cubes
            ]
            total += sum(read.result() for read in reads)
    return total


def main(years: int = 6, turns: int = 7) -> None:
    """Make the cubes, take turns and print."""
    worker = {name: str(value) for name, value in ENVIRONMENT.items()}
    if any(os.environ.get(name) != value for name, value in worker.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **worker})
    with tempfile.TemporaryDirectory(prefix="deepprofile-benchmark-") as folder:
        context = make_world(Path(folder), years * 365 // BLOCK_DAYS)
        jobs = collocate._jobs(context)
        make_cube(context.paths.collocation, collocate._template(context.recipe), 0)
        run_jobs(context, jobs)  # compiles
        n_bytes = read_shards(jobs)
        wall: dict[str, list[float]] = {"jobs": [], "reading": []}
        cpu: dict[str, list[float]] = {"jobs": [], "reading": []}
        for _ in range(turns):
            for name, turn in (
                ("jobs", lambda: run_jobs(context, jobs)),
                ("reading", lambda: read_shards(jobs)),
            ):
                start, used = perf_counter(), process_time()
                turn()
                wall[name].append(perf_counter() - start)
                cpu[name].append(process_time() - used)
    blocks = len(jobs[0].blocks)
    print(
        f"{len(jobs)} tiles x {blocks} blocks x {len(NAMES)} products: {n_bytes / 1e6:.0f} MB raw; "
        f"{turns} turns, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print("                  median s   MB/s  least s   core s")
    for name, text in (("reading", "shards alone"), ("jobs", "collocation jobs")):
        seconds = median(wall[name])
        print(
            f"{text:18}{seconds:8.2f}{n_bytes / seconds / 1e6:7.0f}{min(wall[name]):9.2f}"
            f"{median(cpu[name]):9.2f}"
        )
    for text, times in (("time", wall), ("core time", cpu)):
        medians = median(times["reading"]) / median(times["jobs"])
        least = min(times["reading"]) / min(times["jobs"])
        print(f"ratio by {text}: {medians:.0%} of medians, {least:.0%} of the quickest turns")
