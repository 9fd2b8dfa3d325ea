"""Strong scaling: the same jobs of the stage predict on one worker process and on several.

Run with ``python benchmarks/scaling.py strong``. A year of some tiles, all land, is predicted and
published by Dask: shards read and decoded, engine, packed, written, committed. Worker processes
have one thread each; numbers of processes come by turns, on clusters of their own.
"""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from statistics import median

import torch
import yaml
from distributed import Client
from prediction import BLOCKS, CELL_DAYS, TILE, job_of, write_inputs

from deepprofile.cluster import connected
from deepprofile.model.flags import flag_attributes
from deepprofile.stages.predict import write_profiles
from deepprofile.store import Region, coefficients_template, publish
from deepprofile.store.layout import BLOCK_DAYS

TILES = 4
SEGMENT = 6
"""Blocks that are computed together."""
REGION = Region((TILE.row, TILE.row + 2), (TILE.column, TILE.column + TILES // 2))


def predict(client: Client, folder: str, fingerprint: str, n_tiles: int = TILES) -> float:
    """Seconds that predicting and publishing some tiles takes."""
    url = f"{folder}/coefficients"
    rmtree(url, ignore_errors=True)
    template = coefficients_template(
        REGION, flag_attributes=flag_attributes(), first_block=BLOCKS.start
    )
    tiles = list(REGION.tiles())[:n_tiles]
    jobs = [job_of(folder, fingerprint, SEGMENT, tile) for tile in tiles]
    start = time.perf_counter()
    outcome = publish(
        url,
        template,
        len(BLOCKS) * BLOCK_DAYS,
        write_profiles,
        jobs,
        client=client,
        message="benchmark",
        metadata={"stage": "predict"},
    )
    seconds = time.perf_counter() - start
    assert len(outcome.results) == n_tiles and not outcome.failed
    return seconds


def measure(processes: Sequence[int], turns: int) -> Mapping[int, list[float]]:
    """Seconds of each turn, by number of processes."""
    os.environ["OMP_NUM_THREADS"] = "1"
    found = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="deepprofile-scaling-") as folder:
        fingerprint = write_inputs(folder, REGION)
        for turn in range(turns):
            for n in processes:
                spec = Path(folder) / "cluster.yaml"
                spec.write_text(yaml.safe_dump({"kind": "local", "workers": n}))
                with connected(spec) as client:
                    client.wait_for_workers(n)
                    assert set(client.run(torch.get_num_threads).values()) == {1}
                    predict(client, folder, fingerprint, n)  # each process imports and compiles
                    found[n].append(predict(client, folder, fingerprint))
                print(f"turn {turn + 1}: {n} processes {found[n][-1]:.1f} s", flush=True)
    return found


def report(found: Mapping[int, Sequence[float]]) -> None:
    """Medians, and how many times as fast as one process."""
    first = median(found[min(found)])
    for n, seconds in sorted(found.items()):
        middle = median(seconds)
        print(
            f"{n} processes: {middle:6.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), "
            f"{TILES * CELL_DAYS / middle:9,.0f} cell-days a second, {first / middle:.2f} x"
        )
