"""The whole chain on the full grid, with few days and a thin model, and every cell checked.

Run with ``python benchmarks/full_grid.py [--days 44] [--folder FOLDER] [--keep]``; it takes a
quarter of an hour on two cores and 40 GB of disk. Files of the real size are made, one time step a
day, on the Earth's own land (see `full_size.real_land`). Then ``pipelines/global.yaml`` with these
files and a thin network (a window of 40 days, few samples) goes from granules to coefficients, a
day arrives, and ``pipelines/daily.yaml`` takes it in. Prints time and memory of each stage, and
checks

- by the ledger and by what each commit changed in the store that every land tile of every block was
  written exactly once by the chain, and the last block once more by the daily run;
- by the values that every land cell has a profile on every day with a full window, that no other
  cell or day has one, and that the land is that of the granules.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import psutil
import yaml
from full_size import real_land, write_days
from full_size_gridded import HOUR, write_era5_land, write_gldas, write_relief
from memory import INTERVAL, pss

import deepprofile as dp
from deepprofile.model.flags import Flag
from deepprofile.recipe import load_recipe
from deepprofile.stages.context import Paths
from deepprofile.store import history
from deepprofile.store.kinds import NOT_PROCESSED
from deepprofile.store.layout import BLOCK_DAYS, Region
from deepprofile.store.repository import open_repository

PIPELINES = Path(__file__).parents[1] / "pipelines"
START, WINDOW = date(2015, 3, 31), 40
STATES = 3
"""Different granules of SMAP L4, which come by turns."""
STAGES = ("ingest", "collocate", "sample", "train", "predict")
THIN: Mapping[str, Any] = {
    "ingest": {"min_fraction": 0.04},  # one step a day
    "collocation": {"min_samples": 30},
    "sample": {"other_cells": 500},
    "training": {
        "window": WINDOW,
        "epochs": 2,
        "samples_per_epoch": 1280,
        "average_last": 1,
        "validation_samples": 512,
    },
}
"""What differs from `pipelines/global.yaml`, beside files and period."""
FIRST_BLOCK = (WINDOW - 1) // BLOCK_DAYS
"""The block of the first day with a full window, with which profiles begin."""


def make_files(folder: Path, n_days: int) -> dict[str, Path]:
    """Granules of some days and an elevation model; folders by product."""
    places = {name: folder / name for name in ("smap_l4", "era5_land", "gldas")}
    for place in places.values():
        place.mkdir()
    write_days(places["smap_l4"], START, n_days, STATES, (HOUR + 1,), real_land())
    write_era5_land(places["era5_land"], START, n_days, STATES)
    write_gldas(places["gldas"], START, n_days, STATES)
    write_relief(folder / "relief.nc")
    return places


def write_recipe(folder: Path, name: str, places: Mapping[str, Path], **changes: Any) -> Path:
    """A recipe of ``pipelines/`` with the files of this run."""
    document = yaml.safe_load((PIPELINES / f"{name}.yaml").read_text())
    products = {product: {"url": str(places[product])} for product in document["products"]}
    document |= {"root": str(folder / "root"), "products": products, **changes}
    if "terrain" in document:
        document["terrain"] = {"urls": [str(folder / "relief.nc")]}
    document.pop("stations", None)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


class Watch:
    """Peak memory of a command, of all its processes together and of the largest of them."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._stop = process, Event()
        self._thread = Thread(target=self._run)
        self.together = self.largest = 0

    def reset(self) -> tuple[int, int]:
        """Both peaks since the last call."""
        found = self.together, self.largest
        self.together = self.largest = 0
        return found

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            found = [
                pss(process) for process in [self._process, *self._process.children(recursive=True)]
            ]
            self.together = max(self.together, sum(found))
            self.largest = max(self.largest, *found)

    @contextmanager
    def watching(self) -> Iterator["Watch"]:
        """Watch in a thread meanwhile."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()


def run(arguments: Sequence[str], titles: Sequence[str]) -> None:
    """Run a command; after each of its parts, which begin with a title, print what it took."""
    command = [str(Path(sys.executable).with_name("deepprofile")), *arguments]
    print("$ deepprofile", *arguments, flush=True)
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        watch = stack.enter_context(Watch(psutil.Process(process.pid)).watching())
        assert process.stdout is not None
        part, started = "start", time.perf_counter()
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.strip() in titles:
                report(part, started, watch)
                part, started = line.strip(), time.perf_counter()
        if process.wait():
            sys.exit(f"deepprofile {arguments[0]} ended with {process.returncode}")
        report(part, started, watch)


def report(part: str, started: float, watch: Watch) -> None:
    """What a part of a command took."""
    together, largest = (peak / 1e9 for peak in watch.reset())
    seconds = time.perf_counter() - started
    print(
        f"  >> {part}: {seconds:.0f} s; all processes {together:.2f} GB, largest {largest:.2f} GB",
        flush=True,
    )


def check_writes(url: str, n_blocks: int, again: int) -> None:
    """Every piece written once, of the last block as often more as there were daily runs."""
    tiles = list(Region.globe().land_tiles(real_land()))
    expected = Counter(
        {
            (tile.row, tile.column, block): 1 + (again if block == n_blocks - 1 else 0)
            for tile in tiles
            for block in range(FIRST_BLOCK, n_blocks)
        }
    )
    ledger = Counter(
        tuple(map(int, name.replace("tile ", "").replace("block ", "").split()))
        for commit in history(url)
        for name in commit.metadata.get("done", ())
    )
    assert ledger == expected, "the ledger names other pieces than the land has"
    for array in ("coefficients", "flag"):
        stored = Counter(shards_written(url, array))
        assert stored == expected, f"{array}: other shards were written than the land has"
    print(
        f"{len(tiles)} tiles with land x {n_blocks - FIRST_BLOCK} blocks with profiles: each "
        f"written once by the chain, those of the last block {again} times more; ledger and store "
        "agree"
    )


def shards_written(url: str, array: str) -> Iterator[tuple[int, int, int]]:
    """Tile row, tile column and block of each shard, as often as a snapshot of it was changed."""
    repository = open_repository(url)
    snapshots = [entry.id for entry in repository.ancestry(branch="main")][::-1]
    for before, after in pairwise(snapshots):
        difference = repository.diff(from_snapshot_id=before, to_snapshot_id=after)
        for index in difference.updated_chunks.get(f"/{array}", ()):
            yield index[-2], index[-1], FIRST_BLOCK + index[0]


def check_values(root: str, n_days: int) -> None:
    """Profiles in all land cells on all days with a full window, and nowhere else."""
    land = real_land()
    static = dp.open_cube(Paths(root).static, chunks=None)
    assert np.array_equal(static["land"].values == 1, land), "the land is not that of the granules"
    cube = dp.open_cube(Paths(root).coefficients, chunks=None)
    first = FIRST_BLOCK * BLOCK_DAYS
    assert cube.sizes["time"] == n_days - first
    seen = Counter[str]()
    for start in range(first, n_days, BLOCK_DAYS):
        stop = min(start + BLOCK_DAYS, n_days)
        here = slice(start - first, stop - first)
        flag = cube["flag"][here].values
        without = np.isin(flag, [NOT_PROCESSED, Flag.NOT_LAND])
        assert (without == ~land).all(), "land cells were left out, or others written"
        full = np.arange(start, stop) >= WINDOW - 1
        assert (flag[full][:, land] == Flag.VALID).all()
        assert (flag[~full][:, land] == Flag.NO_FULL_WINDOW).all()
        surface = cube["coefficients"].isel(degree=0)[here]
        for i, complete in enumerate(full):
            profiles = np.isfinite(surface[i].values)
            assert (profiles == (land & complete)).all()
            seen.update(days=int(complete), profiles=int(profiles.sum()))
    print(
        f"{land.sum():,} land cells have {seen['profiles']:,} profiles on {seen['days']} days with "
        "a full window; no other cell or day has one"
    )


def main() -> None:
    """Make the files, run both recipes and check what they wrote."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=44)
    parser.add_argument("--folder", type=Path, help="where all is made; must not hold anything")
    parser.add_argument("--keep", action="store_true", help="leave the files and cubes there")
    chosen = parser.parse_args()
    if chosen.days < WINDOW + 1:
        parser.error(f"--days: at least {WINDOW + 1} are needed")
    with ExitStack() as stack:
        folder = chosen.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        places = make_files(folder, chosen.days)
        print(f"files of {chosen.days} days in {time.perf_counter() - started:.0f} s", flush=True)
        go(folder, places, chosen.days)
        if chosen.folder and not chosen.keep:
            subprocess.run(["rm", "-r", str(folder)], check=True)


def go(folder: Path, places: Mapping[str, Path], n_days: int) -> None:
    """Run both recipes on files of some days."""
    end = START + timedelta(days=n_days - 1)
    period = {"start": str(START), "end": str(end)}
    recipe = write_recipe(folder, "global", places, period=period, **THIN)
    root = load_recipe(recipe).root
    run(["plan", str(recipe)], ())
    run(["run", str(recipe), *(word for name in STAGES for word in ("--stage", name))], STAGES)
    n_blocks = -(-n_days // BLOCK_DAYS)
    check_writes(Paths(root).coefficients, n_blocks, 0)
    check_values(root, n_days)
    write_days(places["smap_l4"], end + timedelta(days=1), 1, STATES, (HOUR + 1,), real_land())
    keys = {"training": {"window": WINDOW}, "ingest": THIN["ingest"]}
    daily = write_recipe(folder, "daily", places, period={"start": str(START)}, **keys)
    run(["daily", str(daily), "--verbose"], ())
    check_writes(Paths(root).coefficients, n_blocks, 1)
    check_values(root, n_days + 1)


if __name__ == "__main__":
    main()
