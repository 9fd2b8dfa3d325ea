"""Speed of cubes against plain Zarr: writing and reading a tile-year of forcing.

    python benchmarks/store.py            # a local disk
    python benchmarks/store.py --s3       # an S3 server on this machine, with 0 and 20 ms added

Ours: a session, a `Writer`, a commit; `read_tile` after opening. Peer: xarray's `to_zarr(region=…)`
and `open_zarr` on a plain Zarr v3 store with the same dimensions, shards, chunks and codecs, which
zarr packs and unpacks itself. Both
write into a structure that is there. Both open the store anew at every turn, take turns in one
process, and are checked to hold the same values. Times are minima over turns. The peer is measured
with the values as they come, and with values whose mantissas were rounded before, which pack as
ours do; ours always rounds them itself.
"""

import argparse
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable

import numpy as np
import s3fs
import xarray as xr
import zarr
from dask.utils import format_bytes
from slow_store import slow_store

from deepprofile.benchmark import TILE, committed_writer, forcing_template, make_cube
from deepprofile.benchmark import smooth_fields as fields_of
from deepprofile.store import open_cube, read_tile
from deepprofile.store.codec import NAME
from deepprofile.store.kinds import MOISTURE_BITS
from deepprofile.store.layout import BLOCK_DAYS, Block
from deepprofile.store.repository import open_repository
from deepprofile.store.rounding import round_mantissa

N_BLOCKS = 12
N_DAYS = N_BLOCKS * BLOCK_DAYS
LATENCIES = (0.0, 0.02)
"""Seconds added to every request to the object store."""


class Ours:
    """A cube."""

    def __init__(self, folder: str) -> None:
        self.url = f"{folder}/cube"
        make_cube(self.url, forcing_template(), N_DAYS)

    def write(self, values: np.ndarray) -> None:
        """Write the tile-year and commit it."""
        with committed_writer(open_repository(self.url)) as writer:
            for index in range(N_BLOCKS):
                place = writer.select(TILE, Block(index))
                writer.write("forcing", place, values[place["time"]])

    def read(self) -> np.ndarray:
        """The tile-year."""
        return read_tile(open_cube(self.url, chunks=None), "forcing", TILE)


class Peer:
    """A plain Zarr store of the same layout."""

    def __init__(self, folder: str) -> None:
        self.url = f"{folder}/plain-{uuid.uuid4().hex[:8]}.zarr"
        spec = next(array for array in forcing_template().arrays if array.name == "forcing")
        group = zarr.open_group(self.url, mode="w", zarr_format=3)
        spec_of_year = type(spec)(**{**vars(spec), "shape": (N_DAYS, *spec.shape[1:])})
        spec_of_year.create(group, ())
        self._dims = spec.dims

    def write(self, values: np.ndarray) -> None:
        """Write the tile-year."""
        year = {name: slice(0, size) for name, size in zip(self._dims, values.shape, strict=True)}
        dataset = xr.Dataset({"forcing": (self._dims, values)})
        dataset.to_zarr(
            self.url, region=year, zarr_format=3, consolidated=False, write_empty_chunks=True
        )

    def read(self) -> np.ndarray:
        """The tile-year."""
        with zarr.config.set({f"codecs.{NAME}": "zarr.codecs.sharding.ShardingCodec"}):
            dataset = xr.open_zarr(self.url, chunks=None, zarr_format=3, consolidated=False)
            values: np.ndarray = dataset["forcing"].values
        return values


def tile_year() -> np.ndarray:
    """Forcing (days, variables, rows, columns) of one tile, all land, that packs like real one."""
    n = next(array.shape[1] for array in forcing_template().arrays if array.name == "forcing")
    return np.concatenate([fields_of(n, seed, TILE.columns.stop) for seed in range(N_BLOCKS)])


def least(turns: int, functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Shortest time of each function, which take turns, after a turn that does not count."""
    best = dict.fromkeys(functions, np.inf)
    for turn in range(turns + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def compare(folder: str, values: np.ndarray, turns: int) -> None:
    """Print the times of both in one place."""
    rounded = round_mantissa(values, MOISTURE_BITS)
    ours, peer, packed = Ours(folder), Peer(folder), Peer(folder)
    written = least(
        turns,
        {
            "ours": lambda: ours.write(values),
            "peer": lambda: peer.write(values),
            "peer, rounded before": lambda: packed.write(rounded),
        },
    )
    np.testing.assert_array_equal(ours.read(), rounded)
    np.testing.assert_array_equal(packed.read(), rounded)
    np.testing.assert_array_equal(peer.read(), values)
    read = least(turns, {"ours": ours.read, "peer": peer.read, "peer, rounded before": packed.read})
    for what, seconds in {"write": written, "read": read}.items():
        for name, taken in seconds.items():
            rate = format_bytes(int(values.nbytes / taken))
            ratio = f"{taken / seconds['ours']:.2f} x ours"
            print(f"  {what:6} {name:22} {taken:6.2f} s  {rate}/s  {ratio}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--s3", action="store_true", help="on an S3 server of this machine")
    parser.add_argument("--latency", type=float, nargs="*", default=LATENCIES, help="seconds")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", help="where the local stores are written")
    given = parser.parse_args()
    values = tile_year()
    print(f"tile-year of {values.shape[1]} variables, {format_bytes(values.nbytes)} raw")
    if given.s3:
        for latency in given.latency:
            print(f"S3 on this machine, {1000 * latency:.0f} ms added to each request")
            with slow_store("benchmark", latency) as bucket:
                s3fs.S3FileSystem.clear_instance_cache()  # the peer's client of an earlier server
                url = f"{bucket}/store"
                compare(url, values, given.turns)
        return
    folder = tempfile.mkdtemp(dir=given.folder)
    try:
        print(f"local disk, {os.cpu_count()} cores")
        compare(folder, values, given.turns)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
