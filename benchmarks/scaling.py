"""What Dask and the driver take for a job, and how that grows with the number of jobs.

Run with ``python benchmarks/scaling.py [--shares 0.01 0.1 1]``. The jobs are as many as those of
ten years of the whole globe, tile by tile and block by block: 828 tiles with land of 115 blocks.
Each is as large as one of the stage predict, sleeps and returns; they go through `run_jobs` and its
window to a real scheduler in a process of its own, with two worker processes of four threads. Time
beyond the sleep is that of the driver and the scheduler; both share the machine with the workers.
"""

import argparse
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


def measure(client: Client, scheduler: psutil.Process, share: float, seconds: float) -> None:
    """Run a share of the jobs and print what they took."""
    load = bytes(JOB_BYTES - len(dumps(SleepJob(0, 0, seconds, b""))))
    jobs = [
        SleepJob(tile, block, seconds, load)
        for tile in range(max(1, round(TILES * share)))
        for block in range(BLOCKS)
    ]
    own = psutil.Process()
    before = Usage.of(own), Usage.of(scheduler)
    start = time.perf_counter()
    done, failed = run_jobs(client, sleep, jobs)
    wall = time.perf_counter() - start
    assert len(done) == len(jobs) and not failed
    after = Usage.of(own), Usage.of(scheduler)
    n = len(jobs)
    driver, dask = ((b.seconds - a.seconds) / n for a, b in zip(before, after, strict=True))
    overhead = wall / n - seconds / (WORKERS * THREADS)
    memory = " ".join(
        f"{a.memory / MEBIBYTE:7.0f} → {b.memory / MEBIBYTE:.0f}"
        for a, b in zip(before, after, strict=True)
    )
    print(
        f"{n:>8,} jobs {wall:7.1f} s {n / wall:7.0f} a second  beyond the sleep "
        f"{1e3 * overhead:5.2f} ms a job; processor time of the driver {1e3 * driver:5.2f} ms, of "
        f"the scheduler {1e3 * dask:5.2f} ms; MiB of both {memory}",
        flush=True,
    )


def main() -> None:
    """Measure each share of the global list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    parser.add_argument("--seconds", type=float, default=0.0, help="sleep of a job")
    chosen = parser.parse_args()
    with cluster() as (client, scheduler):
        for share in chosen.shares:
            measure(client, scheduler, share, chosen.seconds)


if __name__ == "__main__":
    main()
