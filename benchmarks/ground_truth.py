"""The whole ground-truth stage on real station archives, and where the time goes.

    python benchmarks/ground_truth.py
    python benchmarks/ground_truth.py --archive ismn/ISMN_TxSON_2019_2021.zip --turns 5

Archives lie below the folder that DEEPPROFILE_TEST_DATA names. A turn runs the stage as a recipe
does, on two worker processes that are there already: it lists the files, reads them, merges,
computes the ground truth and writes it. Beside it, in this process: one part of the archive, step
by step, and reading the same files through the ``ismn`` package alone, as its own interface does.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from distributed import Client
from ismn.base import IsmnRoot
from ismn.filehandlers import DataFile
from rich.console import Console

from deepprofile.cluster import LocalSpec
from deepprofile.evaluation.reference.ground_truth import ground_truth
from deepprofile.evaluation.stations import list_sensors, merge_records, read_sensors
from deepprofile.recipe import Recipe
from deepprofile.stages import Context
from deepprofile.stages.stations import open_ground_truth, prepare_ground_truth

ARCHIVE = "ismn/ISMN_USCRN_2019_2021.zip"
WORKERS = 2
SAMPLE = 64
"""Files of which the single steps are measured."""


def recipe_of(root: Path, archives: list[str]) -> Recipe:
    """A recipe of which only the stations matter."""
    return Recipe.model_validate(
        {
            "name": "benchmark",
            "root": str(root),
            "period": {"start": "2019-01-01", "end": "2022-01-01"},
            "products": {name: {"url": "none"} for name in ("smap_l4", "era5_land", "gldas")},
            "terrain": {"urls": ["none"]},
            "stations": {"urls": archives},
        }
    )


def stage(archives: list[str], turns: int) -> tuple[list[float], list[float]]:
    """Seconds, and core seconds of this process and the workers, of the stage at each turn."""
    seconds, used = [], []
    with LocalSpec(workers=WORKERS).connect() as client:
        client.run(_imported)
        for _ in range(turns):
            with tempfile.TemporaryDirectory(prefix="deepprofile-benchmark-") as folder:
                recipe = recipe_of(Path(folder), archives)
                context = Context(recipe, client, Console(quiet=True))
                start, busy = perf_counter(), _core_seconds(client)
                cells = prepare_ground_truth(context)
                seconds.append(perf_counter() - start)
                used.append(_core_seconds(client) - busy)
                made = open_ground_truth(context.paths.ground_truth)
                shape = f"{len(cells)} cells, {made.sizes['series']} series"
    print(f"{shape}, {made.sizes['time']} days")
    return seconds, used


def _core_seconds(client: Client) -> float:
    return process_time() + sum(client.run(process_time).values())


def _imported() -> bool:
    """In a worker: what a worker of a running recipe has imported already."""
    import deepprofile.stages  # noqa: F401

    return True


def steps(archive: str) -> None:
    """What a sensor costs, step by step, in this process."""
    names, _ = list_sensors(archive)
    chosen = names[:SAMPLE]
    listing = _timed(lambda: list_sensors(archive))
    reading = _timed(lambda: read_sensors(archive, chosen))
    alone = _timed(lambda: _read_alone(archive, chosen))
    records = merge_records([read_sensors(archive, chosen)])
    merging = _timed(lambda: merge_records([records]))
    making = _timed(lambda: ground_truth(records))
    print(f"{len(names)} sensors; core milliseconds for each of {len(chosen)}:")
    for what, seconds in (
        ("reading to daily means", reading),
        ("the ismn package alone", alone),
        ("merging", merging),
        ("ground truth", making),
    ):
        print(f"  {what:26}{1000 * seconds / len(chosen):7.2f}")
    print(f"  listing the whole archive {1000 * listing:7.2f} ms")


def _read_alone(archive: str, names: list[str]) -> None:
    with closing(IsmnRoot(archive)) as root:
        for name in names:
            DataFile(root, name).read_data()


def _timed(function: Callable[[], Any]) -> float:
    used = []
    for _ in range(3):
        start = process_time()
        function()
        used.append(process_time() - start)
    return min(used)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", action="append", default=[])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    data = os.environ.get("DEEPPROFILE_TEST_DATA")
    if not data:
        sys.exit("DEEPPROFILE_TEST_DATA is not set: it names the folder of the station archives")
    archives = [str(Path(data) / name) for name in options.archive or [ARCHIVE]]
    steps(archives[0])
    seconds, used = stage(archives, options.turns)
    print(
        f"the stage on {WORKERS} worker processes: {median(seconds):.1f} s, median of "
        f"{len(seconds)} turns ({min(seconds):.1f} to {max(seconds):.1f}), {median(used):.1f} core "
        f"seconds; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
