"""Measuring the rates of this machine, with the kernels and cubes that the stages use.

Every kind of work runs in Dask workers of one thread, one a core, as jobs do: first on one while
the others are idle, then on all at the same time. The second is what a machine at work reaches.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from distributed import Client
from icechunk import Repository
from numpy.typing import NDArray

from deepprofile.cluster import connected, cores
from deepprofile.collocation import (
    accumulate,
    block_bootstrap,
    column_mean,
    draw_blocks,
    finish,
)
from deepprofile.model.configuration import TrainingConfig
from deepprofile.model.flags import Flag, flag_attributes, window_flags
from deepprofile.model.gaps import MAX_GAP
from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import PredictedSeries, Rectangle
from deepprofile.model.rolling import RollingSeries
from deepprofile.model.samples import Samples
from deepprofile.model.sliding import sliding_coefficients
from deepprofile.model.training import train
from deepprofile.products import PRODUCTS
from deepprofile.rates import Rates, this_machine
from deepprofile.stages.segments import LONGEST
from deepprofile.store import (
    Template,
    Writer,
    coefficients_template,
    open_cube,
    read_tile,
    smap_l4_template,
)
from deepprofile.store.jobs import workers_of
from deepprofile.store.layout import BLOCK_DAYS, Block, Region, Tile
from deepprofile.store.repository import MAIN, open_group, open_or_create
from deepprofile.store.template import extend

SECONDS = 1.0
"""Least time over which a rate is measured."""
DAYS = LONGEST * BLOCK_DAYS
"""Days of output that the engine predicts at a time: those of the longest segment."""
CELLS, GPU_CELLS = 100, 10_000
"""Cells that the engine predicts at a time."""
SERIES_CELLS = 64
"""Cells whose series are bootstrapped or trained on."""
REPLICATES = 20
"""Replicates of the bootstrap."""
N_BLOCKS = 4
"""Blocks of the temporary cubes."""
LAND_COLUMNS = 36
"""Columns of the temporary tile that are land: 56 %, as in a mean tile with land."""
BATCH = 128
"""Samples of a training step, as in the paper."""
STEPS = 16
"""Training steps; their median counts, so that the first and a held-up one do not."""
TILE = Tile(5, 30)
REGION = Region((TILE.row, TILE.row + 1), (TILE.column, TILE.column + 1))

OnStep = Callable[[int, str], None]


def measure_rates(folder: str | None = None, on_step: OnStep | None = None) -> Rates:
    """Measure this machine; takes about half a minute.

    Args:
        folder: where the temporary cubes are written; None for the system's own place.
        on_step: called with the number of steps done and the name of the next.

    Returns:
        The rates of all kinds of work, those of the GPU where there is one.
    """
    if on_step:
        on_step(0, "starting workers")
    with connected() as client:
        return measure_on(client, folder, on_step)


def measure_on(client: Client, folder: str | None = None, on_step: OnStep | None = None) -> Rates:
    """Measure this machine with the workers of a client, which must be one a core; see above."""
    told = on_step or (lambda done, name: None)
    alone: dict[str, float] = {}
    busy: dict[str, float] = {}
    workers = sorted(workers_of(client))
    for done, (kind, function) in enumerate(PER_CORE.items()):
        told(done, kind)
        alone[kind] = _mean(client, function, folder, workers[:1])
        busy[kind] = _mean(client, function, folder, workers)
    for done, (kind, function) in enumerate(WITH_ALL_CORES.items(), len(PER_CORE)):
        told(done, kind)
        busy[kind] = _mean(client, function, folder, workers[:1])
    told(len(PER_CORE) + len(WITH_ALL_CORES), "GPU")
    gpu = {"engine": gpu_seconds()} if torch.cuda.is_available() else {}
    return Rates(machine=this_machine(), core=busy, alone=alone, gpu=gpu)


def engine_seconds(folder: str | None = None) -> float:
    """Seconds that the engine takes for a cell-day on one thread, series to coefficients."""
    torch.set_num_threads(1)
    return _engine(DeepProfile().eval(), CELLS)


def gpu_seconds() -> float:
    """Seconds that the engine takes for a cell-day on the GPU, with copies from and to memory."""
    return _engine(DeepProfile().eval().cuda(), GPU_CELLS)


def series_seconds(folder: str | None = None) -> float:
    """Seconds for a cell-day of what a job does on a core beside the engine.

    Shards of forcing go into series whose memory is new, as in the first segment of a job; flags
    are set, and profiles turned into the order of a cube.
    """
    config = DeepProfile().config
    shard = smooth_fields(config.n_variables)
    land = np.isfinite(shard[0, 0])
    rectangle = Rectangle(land, np.zeros((config.n_auxiliary, *land.shape), np.float32))
    n_days = DAYS + config.window - 1
    n_shards, n_cells = -(-n_days // BLOCK_DAYS), rectangle.cells.size
    coefficients = np.zeros((n_cells, DAYS, config.n_coefficients), np.float32)

    def turn() -> None:
        capacity = n_shards * BLOCK_DAYS
        series = RollingSeries(rectangle.cells, config.n_variables, capacity, 0, MAX_GAP)
        for _ in range(n_shards):
            series.append(shard)
        missing, filled = series.n_missing(0, n_days), series.n_filled(0, n_days)
        flag = window_flags(missing, filled, config.window)
        predicted = PredictedSeries(0, coefficients, flag)
        for start in range(0, DAYS, BLOCK_DAYS):
            rectangle.profiles(predicted, slice(start, start + BLOCK_DAYS))

    return _seconds(turn) / (n_cells * DAYS)


def read_seconds(folder: str | None = None) -> float:
    """Seconds for a raw byte of forcing, from a local cube whose pages are in memory."""
    values = smooth_fields(DeepProfile().config.n_variables)
    with temporary_cube(forcing_template(), folder) as (url, write):
        write({"forcing": values})
        cube = open_cube(url, chunks=None)
        return _seconds(lambda: read_tile(cube, "forcing", TILE)) / (N_BLOCKS * values.nbytes)


def write_seconds(folder: str | None = None) -> float:
    """Seconds for a raw byte of coefficients and flags, packed and committed to a local cube."""
    template = coefficients_template(REGION, flag_attributes=flag_attributes())
    values = smooth_fields(DeepProfile().config.n_coefficients)
    flag = np.where(np.isnan(values[:, 0]), Flag.NOT_LAND, Flag.VALID).astype(np.uint8)
    with temporary_cube(template, folder) as (_, write):
        n_bytes = N_BLOCKS * (values.nbytes + flag.nbytes)
        return _seconds(lambda: write({"coefficients": values, "flag": flag})) / n_bytes


def collocate_seconds(folder: str | None = None) -> float:
    """Seconds for a cell-day: columns of the three products, statistics, estimates."""
    n_days, n_cells = 10 * BLOCK_DAYS, 1024
    products = [PRODUCTS[name].layers for name in ("smap_l4", "era5_land", "gldas")]
    rng = np.random.default_rng(0)
    values = [rng.random((n_days, len(layers), n_cells), np.float32) for layers in products]

    def collocate() -> object:
        pairs = zip(values, products, strict=True)
        x, y, z = (column_mean(part, layers, axis=1) for part, layers in pairs)
        return finish(accumulate(x, y, z))

    return _seconds(collocate) / (n_days * n_cells)


def bootstrap_seconds(folder: str | None = None) -> float:
    """Seconds for a replicate of a cell-day."""
    n_days = 2 * DAYS
    rng = np.random.default_rng(0)
    x, y, z = rng.random((3, n_days, SERIES_CELLS), np.float32)
    blocks = draw_blocks(n_days, REPLICATES)
    days = np.arange(n_days)
    seconds = _seconds(lambda: block_bootstrap(x, y, z, days, blocks))
    return seconds / (n_days * SERIES_CELLS * REPLICATES)


def train_seconds(folder: str | None = None) -> float:
    """Seconds that training takes for a sample, with as many threads as there are cores."""
    layers = [layer for product in PRODUCTS.values() for layer in product.layers]
    config, rng = DeepProfile().config, np.random.default_rng(0)
    n_days = config.window + BATCH * STEPS // SERIES_CELLS
    samples = Samples.from_arrays(
        rng.random((SERIES_CELLS, config.n_variables, n_days), np.float32),
        rng.random((SERIES_CELLS, config.n_auxiliary), np.float32),
        rng.random((SERIES_CELLS, len(layers), n_days), np.float32),
        rng.random((SERIES_CELLS, len(layers)), np.float32),
    )
    settings = TrainingConfig(
        epochs=1, average_last=1, batch_size=BATCH, statistics_batches=1, threads=cores()
    )
    index, ends = samples.sample_index(config.window), [time.perf_counter()]
    train(
        samples,
        index,
        index[:0],
        layers,
        settings,
        on_step=lambda epoch, step, steps: ends.append(time.perf_counter()),
    )
    return float(np.median(np.diff(ends))) / BATCH


PER_CORE: Mapping[str, Callable[[str | None], float]] = {
    "engine": engine_seconds,
    "series": series_seconds,
    "read": read_seconds,
    "write": write_seconds,
    "collocate": collocate_seconds,
    "bootstrap": bootstrap_seconds,
}
"""Kinds of work that every core does by itself."""
WITH_ALL_CORES: Mapping[str, Callable[[str | None], float]] = {"train": train_seconds}
"""Kinds of work that one job does with all cores."""
N_STEPS = len(PER_CORE) + len(WITH_ALL_CORES) + 1
"""Steps of a measurement, the GPU's included."""


def forcing_template() -> Template:
    """Structure of the temporary cube of forcing."""
    fields = PRODUCTS["smap_l4"].fields
    variables = {field.name: field.units for field in fields if field.layer is None}
    return smap_l4_template(REGION, variables, PRODUCTS["smap_l4"].layers)


def smooth_fields(n: int, seed: int = 0, land_columns: int = LAND_COLUMNS) -> NDArray[np.float32]:
    """Fields that change little from day to day and cell to cell, NaN in the sea.

    Args:
        n: number of fields.
        seed: of their random numbers.
        land_columns: columns, from the west, that are land.

    Returns:
        (days of a block, n, rows, columns) of a tile; packed they take about a quarter, as real
        ones do.
    """
    rng = np.random.default_rng(seed)
    shape = BLOCK_DAYS, n, TILE.rows.stop - TILE.rows.start, TILE.columns.stop - TILE.columns.start
    values = rng.normal(0, 0.01, shape).cumsum(axis=0)
    for axis in (2, 3):
        values += rng.normal(0, 0.05, (1, *shape[1:])).cumsum(axis=axis)
    values = (1 + values).astype(np.float32)
    values[..., land_columns:] = np.nan
    return values


def _engine(model: DeepProfile, n_cells: int) -> float:
    config, rng = model.config, np.random.default_rng(0)
    n_days = DAYS + config.window - 1
    series = rng.random((n_cells, config.n_variables, n_days), np.float32)
    auxiliary = rng.random((n_cells, config.n_auxiliary), np.float32)
    seconds = _seconds(lambda: sliding_coefficients(model, series, auxiliary))
    return seconds / (n_cells * DAYS)


def _mean(
    client: Client, function: Callable[[str | None], float], folder: str | None, workers: list[str]
) -> float:
    """Mean over workers that measure at the same time."""
    futures = [client.submit(function, folder, workers=[w], pure=False) for w in workers]
    return float(np.mean(client.gather(futures)))


def _seconds(function: Callable[[], object]) -> float:
    """Mean time of a call over at least SECONDS, after one that compiles and loads."""
    function()
    calls, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS or not calls:
        function()
        calls += 1
    return passed / calls


@contextmanager
def temporary_cube(
    template: Template, folder: str | None
) -> Iterator[tuple[str, Callable[[Mapping[str, NDArray[np.generic]]], None]]]:
    """A temporary cube of one tile, and a function that writes the same into each of its blocks."""
    with tempfile.TemporaryDirectory(prefix="deepprofile-benchmark-", dir=folder) as root:
        url = f"{root}/cube"
        repository = make_cube(url, template, N_BLOCKS * BLOCK_DAYS)

        def write(arrays: Mapping[str, NDArray[np.generic]]) -> None:
            with committed_writer(repository) as writer:
                for index in range(N_BLOCKS):
                    place = writer.select(TILE, Block(index))
                    for name, values in arrays.items():
                        writer.write(name, place, values)

        yield url, write


def make_cube(url: str | Path, template: Template, n_days: int) -> Repository:
    """A cube of so many days in which nothing is written yet; 0 for one without days."""
    repository = open_or_create(url, template)
    if n_days:
        session = repository.writable_session(MAIN)
        extend(open_group(session.store, url), n_days)
        session.commit("time")
    return repository


@contextmanager
def committed_writer(repository: Repository) -> Iterator[Writer]:
    """A writer into a cube; what it wrote is committed at the end."""
    session = repository.writable_session(MAIN)
    yield Writer(session)
    session.commit("values")
