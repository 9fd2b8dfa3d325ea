"""What worker processes need, wherever they run: environment, threads, quiet logs."""

import logging
import os
import signal
import sys
import threading

import dask
import psutil
from distributed import Worker, WorkerPlugin

ENVIRONMENT = {
    "GOMP_SPINCOUNT": 10_000,
    "MALLOC_TRIM_THRESHOLD_": 128 * 2**20,
    "MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
}
"""Environment of worker processes beside their threads. Idle OpenMP threads soon sleep: by default
they spin for long and take the cores from whatever else runs. Freed memory up to 128 MiB is kept:
with Dask's own 64 kB every array of a training step is new pages (measured: 19 steps a second
against 35)."""
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Numbers of threads that libraries take for one call; torch takes the first."""
QUIET = {
    "distributed.worker": "Compute Failed",
    "distributed.nanny": "Worker process still alive after",
}
"""Beginnings of what Dask logs without need: errors of jobs, which whoever asked for the job gets
and reports, and workers that are slow to stop, which are killed."""
PRELOAD = "deepprofile.cluster.preload"
"""Module that a nanny started elsewhere loads before its worker (``dask worker --preload-nanny``),
so that the worker starts with `worker_environment`."""


def cores() -> int:
    """Cores that this process may use; all there are where the system keeps no such list."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        return len(process.cpu_affinity())
    return os.cpu_count() or 1


def worker_environment(job_threads: int, n_cores: int) -> dict[str, str]:
    """Environment with which the worker processes of a machine start.

    Args:
        job_threads: jobs that the machine's workers run at a time, all processes together.
        n_cores: cores of the machine that they share.

    Returns:
        `ENVIRONMENT`, and as many threads for each call of a library as there are cores for a job.
    """
    share = str(max(1, n_cores // max(job_threads, 1)))
    return {name: str(value) for name, value in ENVIRONMENT.items()} | dict.fromkeys(THREADS, share)


def with_own_threads(values: dict[str, str]) -> dict[str, str]:
    """The values of `worker_environment`, with a user's OMP_NUM_THREADS for all libraries.

    torch takes the number of MKL before that of OpenMP.
    """
    own = os.environ.get(THREADS[0])
    return values if own is None else values | dict.fromkeys(THREADS, own)


_LEFT: dict[str, str] = {}
"""What Dask leaves in this process's own environment of the values of the last cluster."""


def set_environment(values: dict[str, str]) -> None:
    """Have worker processes of this machine start with some values; what the user has set stays.

    Values that an earlier call has set, and that Dask has left in this process's own environment,
    don't count as the user's.
    """
    for name, value in _LEFT.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    values = with_own_threads(values)
    _LEFT.clear()
    _LEFT.update({name: value for name, value in values.items() if name not in os.environ})
    prefix = "distributed.nanny.pre-spawn-environ"
    dask.config.set({f"{prefix}.{name}": value for name, value in values.items()})


def keep_from_deadlock() -> None:
    """Turn Dask's profiler off in a Python in which it may stop a process for good.

    It calls ``sys._current_frames`` a hundred times a second. Before Python 3.11.9 this waits for
    ever if garbage is collected meanwhile and another thread comes or goes
    (github.com/python/cpython/issues/106883); Dask replaces such a worker after five minutes.
    """
    if sys.version_info < (3, 11, 9):
        dask.config.set({"distributed.worker.profile.enabled": False})


class QuietWorker(WorkerPlugin):
    """Keeps tracebacks of failing jobs, and of Ctrl-C, out of the terminal."""

    name = "deepprofile-quiet"

    def setup(self, worker: Worker) -> None:
        """Called by Dask in every worker."""
        be_quiet("distributed.worker")
        if threading.current_thread() is threading.main_thread():  # in a process of its own
            # Ctrl-C reaches all processes of a terminal; the run closes its workers in order.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def be_quiet(logger: str) -> None:
    """Leave out what QUIET names of a logger of this process."""
    logging.getLogger(logger).addFilter(_is_needed)


def _is_needed(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(QUIET[record.name])
