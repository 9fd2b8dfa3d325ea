"""What Dask and the driver take for a job, and how that grows with the number of jobs.

Run with ``python benchmarks/scaling.py jobs``. The jobs are as many as those of ten years of the
whole globe, tile by tile and block by block: 828 tiles with land of 115 blocks.
Each is as large as one of the stage predict, sleeps and returns; they go through `run_jobs` and its
window to a real scheduler in a process of its own, with two worker processes of four threads. Time
beyond the sleep is that of the driver and the scheduler; both share the machine with the workers.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import dumps

import psutil
from distributed import Client

from deepprofile.store import run_jobs

TILES, BLOCKS = 828, 115
"""Tiles of the grid that hold land outside Antarctica; blocks of 32 days in ten years."""
WORKERS, THREADS = 2, 4
JOB_BYTES = 1_500
"""Size of a job of the stage predict as it travels."""
MEBIBYTE = 2**20


@dataclass(frozen=True)
class SleepJob:
    """A job that does nothing.

    Attributes:
        tile: number of the tile.
        block: number of the block.
        seconds: how long it sleeps.
        load: as many bytes as a real job has beside these.
    """

    tile: int
    block: int
    seconds: float
    load: bytes

    @property
    def key(self) -> str:
        """Name of the job."""
        return f"tile {self.tile} block {self.block}"


def sleep(job: SleepJob) -> int:
    """Sleep, and return something small."""
    time.sleep(job.seconds)
    return job.block


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
def cluster() -> Iterator[tuple[Client, psutil.Process]]:
    """A client, and the process of its scheduler."""
    python = [sys.executable, "-m"]
    where = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen(
        [*python, "distributed.cli.dask_scheduler", *where], stderr=subprocess.PIPE, text=True
    )
    assert scheduler.stderr is not None
    address = next(
        line.split("Scheduler at:")[1].strip()
        for line in scheduler.stderr
        if "Scheduler at" in line
    )
    options = ["--nworkers", str(WORKERS), "--nthreads", str(THREADS), "--no-dashboard"]
    workers = subprocess.Popen(
        [*python, "distributed.cli.dask_worker", address, *options], stderr=subprocess.DEVNULL
    )
    try:
        with Client(address) as client:
            client.wait_for_workers(WORKERS)
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
        driver_memory: resident bytes of the driver before and after.
        scheduler_memory: resident bytes of the scheduler before and after.
    """

    jobs: int
    wall: float
    driver: float
    scheduler: float
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
            f"MiB: driver {memory[0]}, scheduler {memory[1]}"
        )


def measure(share: float, seconds: float = 0.0) -> Load:
    """Run a share of the global list on a cluster of its own; each job sleeps so many seconds."""
    load = bytes(JOB_BYTES - len(dumps(SleepJob(0, 0, seconds, b""))))
    jobs = [
        SleepJob(tile, block, seconds, load)
        for tile in range(max(1, round(TILES * share)))
        for block in range(BLOCKS)
    ]
    own = psutil.Process()
    with cluster() as (client, scheduler):
        run_jobs(client, sleep, jobs[: WORKERS * THREADS])  # imports what the first jobs need
        before = Usage.of(own), Usage.of(scheduler)
        start = time.perf_counter()
        done, failed = run_jobs(client, sleep, jobs)
        wall = time.perf_counter() - start
        after = Usage.of(own), Usage.of(scheduler)
    assert len(done) == len(jobs) and not failed
    driver, dask = (b.seconds - a.seconds for a, b in zip(before, after, strict=True))
    memory = [(a.memory, b.memory) for a, b in zip(before, after, strict=True)]
    return Load(len(jobs), wall, driver, dask, *memory)
