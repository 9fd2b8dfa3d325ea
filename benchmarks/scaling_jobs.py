"""What Dask and the driver take for a job, and how that grows with the number of jobs.

Run with ``python benchmarks/scaling.py jobs``. The jobs are as many as those of ten years of the
whole globe, tile by tile and block by block: 828 tiles with land of 115 blocks. Each is as large as
one of the stage predict, sleeps and returns as much as one; they go through `run_jobs` and its
window, those of a block together as for a publication, to a real scheduler in a process of its own.
Time beyond the sleep is that of the driver and the scheduler; both share the machine with the
workers.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import dumps
from random import randbytes
from secrets import token_hex

import psutil
from distributed import Client

from deepprofile.store import run_jobs

TILES, BLOCKS = 828, 115
"""Tiles of the grid that hold land outside Antarctica; blocks of 32 days in ten years."""
JOB_BYTES = 1_500
"""Size of a job of the stage predict as it travels."""
RESULT_BYTES = 3_300
"""Size of what a job of 24 blocks returns: the fork of the store's session, with 48 shards."""
MEBIBYTE = 2**20


@dataclass(frozen=True)
class SleepJob:
    """A job that does nothing.

    Attributes:
        tile: number of the tile.
        block: number of the block.
        seconds: how long it sleeps.
        fingerprint: of its own, as a real job has.
        load: as many bytes as a real job has beside these; URLs and settings, shared by all.
    """

    tile: int
    block: int
    seconds: float
    fingerprint: str
    load: bytes

    @property
    def key(self) -> str:
        """Name of the job."""
        return f"tile {self.tile} block {self.block}"


def sleep(job: SleepJob) -> bytes:
    """Sleep, and return as much as a real job."""
    time.sleep(job.seconds)
    return randbytes(RESULT_BYTES)


@dataclass(frozen=True)
class Usage:
    """What a process has taken.

    Attributes:
        seconds: of processor time.
        memory: resident bytes.
    """

    seconds: float
    memory: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Usage":
        """What a process has taken so far."""
        times = process.cpu_times()
        return cls(times.user + times.system, process.memory_info().rss)


@contextmanager
def cluster(n_workers: int, n_threads: int) -> Iterator[tuple[Client, psutil.Process]]:
    """A client, and the process of its scheduler."""
    python = [sys.executable, "-m"]
    where = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    here = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(here)}
    scheduler = subprocess.Popen(
        [*python, "distributed.cli.dask_scheduler", *where],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert scheduler.stderr is not None
    address = next(
        line.split("Scheduler at:")[1].strip()
        for line in scheduler.stderr
        if "Scheduler at" in line
    )
    options = ["--nworkers", str(n_workers), "--nthreads", str(n_threads), "--no-dashboard"]
    workers = subprocess.Popen(
        [*python, "distributed.cli.dask_worker", address, *options],
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        with Client(address) as client:
            client.wait_for_workers(n_workers)
            yield client, psutil.Process(scheduler.pid)
    finally:
        for process in (workers, scheduler):
            process.terminate()
            process.wait(30)


@dataclass(frozen=True)
class Load:
    """What some jobs have taken.

    Attributes:
        jobs: how many.
        wall: seconds.
        driver: seconds of processor time of the driver.
        scheduler: seconds of processor time of the scheduler.
        list_memory: resident bytes that the driver gained with the list of jobs alone.
        driver_memory: resident bytes of the driver before and after.
        scheduler_memory: resident bytes of the scheduler before and after.
    """

    jobs: int
    wall: float
    driver: float
    scheduler: float
    list_memory: int
    driver_memory: tuple[int, int]
    scheduler_memory: tuple[int, int]

    @property
    def line(self) -> str:
        """All of it in words."""
        per_job = [1e3 * seconds / self.jobs for seconds in (self.driver, self.scheduler)]
        memory = [
            " → ".join(f"{value / MEBIBYTE:.0f}" for value in pair)
            for pair in (self.driver_memory, self.scheduler_memory)
        ]
        return (
            f"{self.jobs:>8,} jobs {self.wall:7.1f} s {self.jobs / self.wall:5.0f} a second; "
            f"processor time a job: driver {per_job[0]:.2f} ms, scheduler {per_job[1]:.2f} ms; "
            f"MiB: driver {memory[0]} (list of jobs {self.list_memory / MEBIBYTE:.0f}), "
            f"scheduler {memory[1]}"
        )


def make_jobs(share: float, seconds: float) -> list[list[SleepJob]]:
    """Jobs of a share of the blocks, those of a block together."""
    empty = SleepJob(0, 0, seconds, token_hex(32), b"")
    load = bytes(JOB_BYTES - len(dumps(empty)))
    return [
        [SleepJob(tile, block, seconds, token_hex(32), load) for tile in range(TILES)]
        for block in range(max(1, round(BLOCKS * share)))
    ]


def measure(share: float, seconds: float, n_workers: int, n_threads: int) -> Load:
    """Run a share of the global list on a cluster of its own; each job sleeps so many seconds."""
    own = psutil.Process()
    with cluster(n_workers, n_threads) as (client, scheduler):
        run_jobs(client, sleep, make_jobs(0, 0)[0][:24])  # imports what the first jobs need
        before = Usage.of(own), Usage.of(scheduler)
        groups = make_jobs(share, seconds)
        list_memory = Usage.of(own).memory - before[0].memory
        start = time.perf_counter()
        for jobs in groups:
            done, failed = run_jobs(client, sleep, jobs)
            assert len(done) == len(jobs) and not failed, failed[0].error
        wall = time.perf_counter() - start
        after = Usage.of(own), Usage.of(scheduler)
    driver, dask = (b.seconds - a.seconds for a, b in zip(before, after, strict=True))
    memory = [(a.memory, b.memory) for a, b in zip(before, after, strict=True)]
    return Load(sum(map(len, groups)), wall, driver, dask, list_memory, *memory)
