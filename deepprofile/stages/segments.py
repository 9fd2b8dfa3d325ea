"""Memory of workers and jobs of the predict stage, and how long the segments of a job may be."""

from dataclasses import dataclass

from distributed import Client

from deepprofile.model.streaming import Stretch
from deepprofile.stages.context import StageError
from deepprofile.store.jobs import NO_WORKERS, workers_of
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS

LONGEST = 12
"""Blocks of the longest segment: a year; longer ones hardly save computing."""
MEMORY_SHARE = 0.8
"""Segments are chosen to fit this share of a worker's memory; Dask pauses workers above it."""

WORKER_MEMORY = 650_000_000
"""Memory of a worker once libraries and model are loaded and kernels compiled (measured)."""
GPU_MEMORY = 2_500_000_000
"""Memory that a GPU's libraries and page-locked copies take beside it (an estimate)."""
ENGINE_MEMORY = 20_000_000
"""Workspace of the engine for each of its threads."""
SHARDS_READ = 2.5
"""Raw shards that reading one takes: raw, cut into chunks, and packed (at most half as large)."""
SHARDS_WRITTEN = 4
"""The same for writing: raw, rounded, cut into chunks, packed."""


@dataclass(frozen=True)
class JobSize:
    """What the memory of a job depends on beside the length of its segments.

    Attributes:
        cells: land cells.
        n_variables: variables of the forcing.
        n_coefficients: coefficients of a profile.
        threads: threads that the engine uses for one job.
        device: ``cpu`` or ``cuda``.
    """

    cells: int
    n_variables: int
    n_coefficients: int
    threads: int = 1
    device: str = "cpu"

    @property
    def worker_memory(self) -> int:
        """Memory of a worker in bytes before its jobs, however many threads it has."""
        return WORKER_MEMORY + (GPU_MEMORY if self.device == "cuda" else 0)

    def memory(self, stretch: Stretch, segment: int) -> int:
        """Predicted peak memory of one job in bytes, beside that of its worker.

        Series and profiles, and beside them all that reading, computing and writing take: freed
        memory below some size stays with the process.
        """
        day, profile = 4 * self.n_variables + 4, 4 * self.n_coefficients + 1
        series = self.cells * stretch.capacity(segment) * day
        profiles = self.cells * segment * BLOCK_DAYS * profile
        shard = BLOCK_DAYS * TILE_CELLS
        reading = int(SHARDS_READ * shard * 4 * self.n_variables)
        writing = SHARDS_WRITTEN * shard * profile
        return series + profiles + reading + writing + self.threads * ENGINE_MEMORY

    def segment(self, stretch: Stretch, limit: float | None, longest: int = LONGEST) -> int:
        """Blocks of the longest segment with which a job fits a limit in bytes, at least 1 and at
        most ``longest``; see `smallest_share`.
        """
        for length in range(min(longest, len(stretch.blocks)), 1, -1):
            if limit is None or self.memory(stretch, length) <= limit:
                return length
        return 1


def smallest_share(client: Client, worker_memory: int) -> float | None:
    """Bytes that one job may take: what a worker leaves of its share, for each of its threads.

    Args:
        client: client of the cluster.
        worker_memory: what a worker takes before its jobs, in bytes.

    Returns:
        The smallest of all workers; None if none has a limit.

    Raises:
        StageError: if there is no worker.
    """
    workers = workers_of(client).values()
    if not workers:
        raise StageError(NO_WORKERS)
    shares = [
        (MEMORY_SHARE * worker["memory_limit"] - worker_memory) / worker["nthreads"]
        for worker in workers
        if worker["memory_limit"]
    ]
    return min(shares, default=None)
