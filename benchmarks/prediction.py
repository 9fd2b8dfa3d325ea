"""Speed of the predict stage end to end: read, decode, predict, pack and write a tile-year.

    python benchmarks/prediction.py

Makes a cube of one tile, all land, in a temporary folder: a year of output and the year before
it. The job's own function then predicts it in one process and in two at the same time, one thread
each, in turns with the engine alone on as many cells and days. Prints cell-days a second of both,
their ratio, and where a job's time goes. Times are minima over turns. Then the peak memory of the
first and the second job of a new process, beside the prediction (Linux only).
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from deepprofile.benchmark import committed_writer, make_cube, smooth_fields
from deepprofile.model import prediction
from deepprofile.model.flags import flag_attributes
from deepprofile.model.io import load_model, save_model
from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import Rectangle, margins
from deepprofile.model.rolling import RollingSeries
from deepprofile.model.sliding import sliding_coefficients
from deepprofile.model.streaming import Stretch
from deepprofile.products import PRODUCTS
from deepprofile.stages import predict
from deepprofile.stages.segments import JobSize
from deepprofile.stages.spans import PredictJob, n_variables
from deepprofile.store import (
    Region,
    Tile,
    Writer,
    coefficients_template,
    smap_l4_template,
    static_template,
)
from deepprofile.store.kinds import FEATURES
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS, TILE_COLUMNS, TILE_ROWS, Block

TILE = Tile(10, 20)
REGION = Region((10, 11), (20, 21))
BLOCKS = range(12, 24)
"""Blocks of output: the second of two years."""
CELL_DAYS = len(BLOCKS) * BLOCK_DAYS * TILE_CELLS
PARTS = {
    "read and decode": (predict, "read_tile"),
    "turn into series, fill gaps": (RollingSeries, "append"),
    "move series on": (RollingSeries, "drop_before"),
    "engine": (prediction, "sliding_coefficients"),
    "turn into a block": (Rectangle, "profiles"),
    "round, pack and write": (Writer, "write"),
}
"""Where a job's time goes, and the function that each part spends it in."""

_together: Barrier


def fields_with_gaps(n: int, block: int) -> np.ndarray:
    """Fields (days, n, rows, columns) of land alone that pack like real ones, with a few gaps."""
    values = smooth_fields(n, block, TILE_COLUMNS)
    values[np.random.default_rng(block).random(values.shape) < 1e-5] = np.nan
    return values


def write_inputs(folder: str, region: Region = REGION) -> str:
    """Cubes of forcing and features of some tiles, and a model; returns its fingerprint."""
    product = PRODUCTS["smap_l4"]
    variables = {field.name: field.units for field in product.fields if field.layer is None}

    template = smap_l4_template(region, variables, product.layers)
    forcing = make_cube(f"{folder}/smap_l4", template, BLOCKS.stop * BLOCK_DAYS)
    with committed_writer(forcing) as writer:
        for index in range(BLOCKS.stop):
            fields = fields_with_gaps(len(variables), index)
            for tile in region.tiles():
                writer.write("forcing", writer.select(tile, Block(index)), fields)
    static = make_cube(f"{folder}/static", static_template(region), 0)
    with committed_writer(static) as writer:
        shape = (TILE_ROWS, TILE_COLUMNS)
        features = np.random.default_rng(0).random((len(FEATURES), *shape), np.float32)
        for tile in region.tiles():
            place = writer.select(tile)
            writer.write("land", place, np.ones(shape, np.uint8))
            writer.write("auxiliary", place, features)
    return save_model(DeepProfile(), f"{folder}/model")


def job_of(folder: str, fingerprint: str, segment: int, tile: Tile = TILE) -> PredictJob:
    """A tile-year."""
    return PredictJob(
        tile=tile,
        blocks=BLOCKS,
        period=(0, BLOCKS.stop * BLOCK_DAYS),
        model=f"{folder}/model",
        model_fingerprint=fingerprint,
        smap_l4=f"{folder}/smap_l4",
        static=f"{folder}/static",
        max_gap=3,
        device="cpu",
        precision="float32",
        segment=segment,
        fingerprints=("benchmark",) * len(BLOCKS),
    )


def run_job(folder: str, fingerprint: str, segment: int) -> None:
    """Predict the tile-year into a cube of its own and commit it."""
    job = job_of(folder, fingerprint, segment)
    template = coefficients_template(
        REGION, flag_attributes=flag_attributes(), first_block=BLOCKS.start
    )
    with tempfile.TemporaryDirectory(dir=folder) as output:
        repository = make_cube(f"{output}/cube", template, len(BLOCKS) * BLOCK_DAYS)
        with committed_writer(repository) as writer:
            predict.write_profiles(writer, job)


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Seconds spent in each of PARTS meanwhile."""
    spent: dict[str, float] = defaultdict(float)

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                spent[part] += time.perf_counter() - start

        return call

    patches = [
        patch.object(owner, name, clocked(part, getattr(owner, name)))
        for part, (owner, name) in PARTS.items()
    ]
    for each in patches:
        each.start()
    try:
        yield spent
    finally:
        for each in patches:
            each.stop()


def seconds(function: Callable[[], object]) -> float:
    """Time of a call that begins when all processes are ready."""
    _together.wait()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(
    folder: str, fingerprint: str, segment: int, turns: int
) -> tuple[list[float], list[float], list[dict[str, float]]]:
    """Seconds of the engine, of the job and of the job's parts, each turn."""
    torch.set_num_threads(1)
    model = load_model(f"{folder}/model")
    rng, n_days = np.random.default_rng(0), segment * BLOCK_DAYS
    series = rng.random((TILE_CELLS, model.config.n_variables, n_days + 359), np.float32)
    features = rng.random((TILE_CELLS, model.config.n_auxiliary), np.float32)

    def engine() -> None:
        for _ in range(0, len(BLOCKS), segment):
            sliding_coefficients(model, series, features)

    sliding_coefficients(model, series[:64], features[:64])  # compiles and loads
    run_job(folder, fingerprint, len(BLOCKS))
    engines, jobs, parts = [], [], []
    for _ in range(turns):
        engines.append(seconds(engine))
        with clocks() as spent:
            jobs.append(seconds(lambda: run_job(folder, fingerprint, segment)))
        parts.append(dict(spent))
    return engines, jobs, parts


def share_barrier(barrier: Any) -> None:
    """Start of a process: what lets all begin together."""
    global _together
    _together = barrier


def report(folder: str, fingerprint: str, segment: int, turns: int, n_processes: int) -> None:
    """Measure with some processes at the same time and print."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(n_processes)
    with ProcessPoolExecutor(
        n_processes, mp_context=context, initializer=share_barrier, initargs=(barrier,)
    ) as pool:
        futures = [
            pool.submit(measure, folder, fingerprint, segment, turns) for _ in range(n_processes)
        ]
        found = [future.result() for future in futures]
    engine = min(max(times) for times in zip(*(engines for engines, _, _ in found), strict=True))
    jobs = [max(times) for times in zip(*(jobs for _, jobs, _ in found), strict=True)]
    best = int(np.argmin(jobs))
    rates = [n_processes * CELL_DAYS / value for value in (engine, jobs[best])]
    print(f"{n_processes} processes of one thread, segments of {segment} blocks")
    print(f"  {'engine alone':28} {rates[0]:10,.0f} cell-days/s")
    print(f"  {'job end to end':28} {rates[1]:10,.0f} cell-days/s, ratio {engine / jobs[best]:.2f}")
    parts = found[0][2][best]
    rest = found[0][1][best] - sum(parts.values())
    for name, value in {**parts, "the rest": rest}.items():
        print(f"  {name:28} {value:10.2f} s, {value / found[0][1][best]:6.1%} of the job")


def peaks(folder: str, fingerprint: str, segment: int) -> list[float]:
    """Peak resident memory in MB during the first and the second job of this process."""
    torch.set_num_threads(1)
    found = []
    for _ in range(2):
        Path("/proc/self/clear_refs").write_text("5")
        run_job(folder, fingerprint, segment)
        lines = Path("/proc/self/status").read_text().splitlines()
        found.append(next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1e6 * 1024)
    return found


def report_memory(folder: str, fingerprint: str) -> None:
    """Predicted and measured peak of jobs with segments of several lengths."""
    around = margins(DeepProfile().config.window)
    stretch = Stretch(BLOCKS, (0, BLOCKS.stop * BLOCK_DAYS), around, BLOCK_DAYS)
    size = JobSize(TILE_CELLS, n_variables(), DeepProfile().config.n_coefficients)
    for segment in (12, 6, 1):
        predicted = (size.worker_memory + size.memory(stretch, segment)) / 1e6
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            first, second = pool.submit(peaks, folder, fingerprint, segment).result()
        print(
            f"segments of {segment:2} blocks: predicted {predicted:,.0f} MB, "
            f"measured {first:,.0f} and {second:,.0f}"
        )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segment", type=int, default=12, help="blocks computed together")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as Dask's workers have it
    with tempfile.TemporaryDirectory(prefix="deepprofile-prediction-") as folder:
        fingerprint = write_inputs(folder)
        print(f"{TILE_CELLS} cells x {len(BLOCKS) * BLOCK_DAYS} days, minima of {options.turns}")
        for n_processes in (1, 2):
            report(folder, fingerprint, options.segment, options.turns, n_processes)
        if Path("/proc/self/clear_refs").exists():
            report_memory(folder, fingerprint)


if __name__ == "__main__":
    main()
