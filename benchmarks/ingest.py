"""Speed of reading full-size SPL4SMGP granules into daily fields, against h5py alone.

    python benchmarks/ingest.py
    python -m deepprofile.testing.object_store --bucket demo -- \
        python benchmarks/ingest.py --remote s3://demo/granules

Writes granules of the whole globe (see full_size.py) to a temporary folder and reads one tile row
(56 rows x 3856 columns, 41 variables) of them in turns: h5py alone, which decompresses the same
rows into memory and does nothing else (the floor), and ``read_daily``, which also checks units,
ranges and versions, and makes daily means. MB are compressed bytes of these rows as they lie in
the file; seconds are of processor time (for "a core") and of the wall clock, medians over turns,
ratios paired within a turn. Then the peak memory of the process, and what a block and ten years
come to. Writing shards is not part of it.
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
from full_size import FIELDS, write_days
from h5py import h5d, h5s

from deepprofile import grid
from deepprofile.products import DailyFields, Granule, SmapL4
from deepprofile.store.layout import BLOCK_DAYS, TILE_ROWS

FIRST = date(2020, 1, 1)
ROWS, COLUMNS = slice(9 * TILE_ROWS, 10 * TILE_ROWS), slice(0, grid.N_COLUMNS)
TILE_ROWS_OF_GLOBE = grid.N_ROWS // TILE_ROWS
BLOCKS_OF_TEN_YEARS = 114


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


def compare(granules: list[Granule], calls: dict[str, Callable[[], object]], turns: int) -> float:
    """Print speed and ratio of each call; returns seconds of a granule of the first after floor."""
    for call in calls.values():
        call()
    seconds = {name: np.empty((turns, 2)) for name in calls}
    for turn in range(turns):
        for name, call in calls.items():
            seconds[name][turn] = timed(call)
    megabytes = sum(stored_bytes(granule) for granule in granules) / 1e6
    lowest = next(iter(seconds.values()))
    for name, found in seconds.items():
        cpu, wall = np.median(found, axis=0)
        ratio_cpu, ratio_wall = np.median(lowest / found, axis=0)
        print(
            f"{name:24s} {megabytes / cpu:7.1f} MB a second a core ({ratio_cpu:4.0%} of the floor) "
            f"{megabytes / wall:7.1f} MB/s of wall clock ({ratio_wall:4.0%})"
        )
    return float(np.median(list(seconds.values())[1][:, 0])) / len(granules)


def main() -> None:
    """Make granules, compare, extrapolate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--remote", help="fsspec URL to copy the granules to and read them from")
    options = parser.parse_args()
    stop, product = FIRST + timedelta(days=options.days), SmapL4()

    def read(granules: list[Granule], threads: int | None) -> DailyFields:
        return product.read_daily(granules, FIRST, options.days, ROWS, COLUMNS, threads=threads)

    with tempfile.TemporaryDirectory() as folder:
        paths = write_days(Path(folder), FIRST, options.days)
        print(f"{len(paths)} granules of {paths[0].stat().st_size / 1e6:.0f} MB")
        granules, _ = product.granules(folder, FIRST, stop)
        print(f"{stored_bytes(granules[0]) / 1e6:.2f} MB of a granule are of this tile row")
        calls: dict[str, Callable[[], object]] = {
            "h5py alone": lambda: floor(granules),
            "read_daily": lambda: read(granules, 1),
            "read_daily, 2 threads": lambda: read(granules, 2),
        }
        if options.remote:
            filesystem, root = fsspec.url_to_fs(options.remote)
            for path in paths:
                filesystem.put_file(str(path), f"{root}/{path.name}")
            remote, _ = product.granules(options.remote, FIRST, stop)
            calls["read_daily, remote"] = lambda: read(remote, None)
        second = compare(granules, calls, options.turns)
        if options.remote:
            filesystem.rm(root, recursive=True)
    extrapolate(second, options.days)


def extrapolate(second: float, days: int) -> None:
    """Memory of a block's job, and core hours of a block and of ten years."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    output = len(FIELDS) * TILE_ROWS * grid.N_COLUMNS * 4 + TILE_ROWS * grid.N_COLUMNS
    block = peak + (BLOCK_DAYS - days) * output
    print(f"peak memory {peak / 1e9:.2f} GB with {days} days; a block's job {block / 1e9:.2f} GB")
    hours = second * 8 * BLOCK_DAYS * TILE_ROWS_OF_GLOBE / 3600
    print(
        f"reading a block of the globe ({8 * BLOCK_DAYS} granules, {TILE_ROWS_OF_GLOBE} tile rows) "
        f"{hours:.2f} core hours; ten years {hours * BLOCKS_OF_TEN_YEARS:.0f} core hours"
    )


if __name__ == "__main__":
    main()
