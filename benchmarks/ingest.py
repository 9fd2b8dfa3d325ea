"""Speed of reading full-size SPL4SMGP granules into daily fields, against h5py alone.

    python benchmarks/ingest.py              # local granules
    python benchmarks/ingest.py --s3         # and from S3, a server on this machine
    python benchmarks/ingest.py --job        # a whole job of the stage, in a worker of its own

Granules of the whole globe are made in a temporary folder (see full_size.py). One tile row of them
(56 rows x 3856 columns, 41 variables) is read in turns: by h5py alone, which decompresses the same
rows into memory and does nothing else (the floor), and by ``read_daily``, which also checks units,
ranges and versions, and makes daily means. MB are compressed bytes of these rows as they lie in the
file; seconds are of processor time (for "a core") and of the wall clock, medians over turns; ratios
are paired within a turn.

The job is one block of one tile row: 256 granules become a shard of each tile with land, by a Dask
worker process of one thread whose largest memory is printed beside what the plan says of it.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import fsspec
import h5py
import numpy as np
from dask.utils import format_bytes
from distributed import Client, LocalCluster
from full_size import FIELDS, land, write_days
from h5py import h5d, h5s
from slow_store import slow_store

from deepprofile import grid
from deepprofile.benchmark import committed_writer, make_cube
from deepprofile.products import DailyFields, Granule, SmapL4
from deepprofile.stages.ingest_jobs import IngestJob, product_template, write_block
from deepprofile.store import Region, publish, static_template
from deepprofile.store.layout import BLOCK_DAYS, TILE_ROWS, Block, day_index

BLOCK = Block(54)
FIRST = date(2015, 3, 31) + timedelta(days=BLOCK.days.start)
TILE_ROW = 9
ROWS, COLUMNS = slice(TILE_ROW * TILE_ROWS, (TILE_ROW + 1) * TILE_ROWS), slice(0, grid.N_COLUMNS)
TILE_ROWS_OF_GLOBE = grid.N_ROWS // TILE_ROWS
BLOCKS_OF_TEN_YEARS = 114
LATENCIES = (0.0, 0.02)
"""Seconds added to every reply of the object store."""


def floor(granules: list[Granule]) -> np.ndarray:
    """The same rows of all variables, read by h5py's low-level calls."""
    values = np.empty((len(FIELDS), TILE_ROWS, grid.N_COLUMNS), np.float32)
    for granule in granules:
        with h5py.File(granule.url, "r") as file:
            for field, target in zip(FIELDS, values, strict=True):
                dataset = h5d.open(file.id, f"Geophysical_Data/{field.source}".encode())
                space = dataset.get_space()
                space.select_hyperslab((ROWS.start, 0), target.shape)
                dataset.read(h5s.create_simple(target.shape), space, target)
    return values


def stored_bytes(granule: Granule) -> int:
    """Compressed bytes of the rows of all variables."""
    with h5py.File(granule.url, "r") as file:
        return sum(
            len(file[f"Geophysical_Data/{field.source}"].id.read_direct_chunk((row, 0))[1])
            for field in FIELDS
            for row in range(ROWS.start, ROWS.stop)
        )


def timed(call: Callable[[], object]) -> np.ndarray:
    """Seconds of processor time and of the wall clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return np.array([time.process_time() - cpu, time.perf_counter() - wall])


def compare(calls: dict[str, Callable[[], object]], megabytes: float, turns: int) -> None:
    """Print speed and ratio of each call; the first is the floor."""
    for call in calls.values():
        call()
    seconds = {name: np.empty((turns, 2)) for name in calls}
    for turn in range(turns):
        for name, call in calls.items():
            seconds[name][turn] = timed(call)
    lowest = next(iter(seconds.values()))
    for name, found in seconds.items():
        cpu, wall = np.median(found, axis=0)
        ratio_cpu, ratio_wall = np.median(lowest / found, axis=0)
        print(
            f"{name:32s} {megabytes / cpu:7.1f} MB a second a core ({ratio_cpu:4.0%} of the floor) "
            f"{megabytes / wall:7.1f} MB/s of wall clock ({ratio_wall:4.0%})",
            flush=True,
        )


def read_speed(folder: Path, n_days: int, turns: int, remote: bool) -> None:
    """Compare ``read_daily`` with the floor, locally and from an object store."""
    paths, product = write_days(folder, FIRST, n_days), SmapL4()
    stop = FIRST + timedelta(days=n_days)
    granules, _ = product.granules(str(folder), FIRST, stop)
    megabytes = sum(stored_bytes(granule) for granule in granules[:2]) / 2e6 * len(granules)
    print(
        f"{len(paths)} granules of {paths[0].stat().st_size / 1e6:.0f} MB, of which "
        f"{megabytes / len(granules):.2f} MB are of this tile row"
    )

    def read(found: list[Granule]) -> DailyFields:
        return product.read_daily(found, FIRST, n_days, ROWS, COLUMNS)

    local: dict[str, Callable[[], object]] = {
        "h5py alone": lambda: floor(granules),
        "read_daily": lambda: read(granules),
    }
    if not remote:
        compare(local, megabytes, turns)
        return
    for latency in LATENCIES:
        with slow_store("granules", latency) as bucket:
            url = f"{bucket}/smap_l4"
            filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
            for path in paths:
                filesystem.put_file(str(path), f"{url}/{path.name}".removeprefix("s3://"))
            found, _ = product.granules(url, FIRST, stop)
            name = f"read_daily, S3 with {1000 * latency:.0f} ms more"
            compare({**local, name: lambda found=found: read(found)}, megabytes, turns)


def whole_job(folder: Path) -> None:
    """Run one job of the ingest stage in a worker process; print its memory and speed."""
    archive, region = folder / "granules", Region.globe()
    archive.mkdir()
    write_days(archive, FIRST, BLOCK_DAYS)
    granules, _ = SmapL4().granules(str(archive), FIRST, FIRST + timedelta(days=BLOCK_DAYS))
    mask, static = land(), str(folder / "static")
    band = Region((TILE_ROW, TILE_ROW + 1), region.tile_columns)
    tiles = tuple(t for t in band.tiles() if mask[t.rows, t.columns].any())
    with committed_writer(make_cube(static, static_template(region), 0)) as writer:
        for tile in tiles:
            writer.write("land", writer.select(tile), mask[tile.rows, tile.columns].astype("u1"))
    job = IngestJob(
        product="smap_l4",
        granules=tuple(granules),
        block=BLOCK,
        n_days=BLOCK_DAYS,
        fresh=tuple(range(BLOCK_DAYS)),
        made_before=False,
        period=(day_index(FIRST), day_index(FIRST) + BLOCK_DAYS),
        band=band,
        tiles=tiles,
        cube="",
        snapshot="",
        static=static,
        min_fraction=0.75,
        fingerprint="benchmark",
    )
    url = folder / "smap_l4"
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        before = client.submit(_peak, pure=False).result()
        start = time.perf_counter()
        publish(
            url,
            product_template(SmapL4(), region),
            BLOCK.days.stop,
            write_block,
            [job],
            client=client,
            message="benchmark",
            metadata={"stage": "ingest"},
        )
        seconds = time.perf_counter() - start
        peak = client.submit(_peak, pure=False).result()
    stored = sum(file.stat().st_size for file in url.rglob("*") if file.is_file())
    predicted = 2 * 4 * BLOCK_DAYS * len(FIELDS) * TILE_ROWS * grid.N_COLUMNS
    print(
        f"{len(granules)} granules to {len(tiles)} tiles in {seconds:.0f} s; "
        f"{format_bytes(stored)} written; worker's peak memory {peak / 1e9:.2f} GB, "
        f"{before / 1e9:.2f} GB of them before the job; the plan says {predicted / 1e9:.2f} GB"
    )
    hours = seconds * TILE_ROWS_OF_GLOBE / 3600
    print(
        f"a block of the globe ({TILE_ROWS_OF_GLOBE} such jobs at most) {hours:.2f} core hours; "
        f"ten years {hours * BLOCKS_OF_TEN_YEARS:.0f} core hours"
    )


def _peak() -> int:
    """Largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Make granules and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--s3", action="store_true", help="also from an object store")
    parser.add_argument("--job", action="store_true", help="a whole job instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.job:
            whole_job(Path(folder))
        else:
            read_speed(Path(folder), options.days, options.turns, options.s3)


if __name__ == "__main__":
    main()
