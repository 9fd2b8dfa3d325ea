"""Dask clusters: where to run."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import dask
import psutil
import yaml
from dask.utils import parse_bytes
from distributed import Client, Worker, WorkerPlugin
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from deepprofile.places import redacted

LOCAL = "local"
INTERRUPTED = (
    "interrupted: what was published stays, and the same command goes on from there. What Dask "
    "says below of workers that it stops is no fault."
)
CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""
ALLOWED_FAILURES = 1
"""Workers that a job may lose before it counts as failed: it would go on to kill the next."""
NO_WORKERS_TIMEOUT = "10 minutes"
"""How long jobs wait while no worker is left; then they fail, instead of waiting for ever."""

ENVIRONMENT = {
    "GOMP_SPINCOUNT": 10_000,
    "MALLOC_TRIM_THRESHOLD_": 128 * 2**20,
    "MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
}
"""Environment of worker processes beside Dask's own. Idle OpenMP threads soon sleep: by default
they spin for long and take the cores from whatever else runs. Freed memory up to 128 MiB is kept:
with Dask's own 64 kB every array of a training step is new pages (measured: 19 steps a second
against 35)."""


def cores() -> int:
    """Cores that this process may use; all there are where the system keeps no such list."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        return len(process.cpu_affinity())
    return os.cpu_count() or 1


QUIET = {
    "distributed.worker": "Compute Failed",
    "distributed.nanny": "Worker process still alive after",
}
"""Beginnings of what Dask logs without need: errors of jobs, which whoever asked for the job gets
and reports, and workers that are slow to stop, which are killed."""


class ClusterError(ValueError):
    """A cluster that can't be described or reached; the message says what to do."""


class LocalSpec(BaseModel):
    """Worker processes on this machine.

    Attributes:
        workers: number of worker processes; null means one for each core.
        threads_per_worker: threads that run jobs in each process.
        memory_limit: memory of one worker ("6GiB"), or "auto" for an equal share of the machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["local"] = "local"
    workers: Annotated[int, Field(ge=1)] | None = None
    threads_per_worker: Annotated[int, Field(ge=1)] = 1
    memory_limit: str = "auto"

    @field_validator("memory_limit")
    @classmethod
    def _a_size(cls, value: str) -> str:
        if value != "auto":
            parse_bytes(value)
        return value

    def connect(self) -> Client:
        """Start the worker processes."""
        dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_FAILURES})
        dask.config.set({"distributed.scheduler.no-workers-timeout": NO_WORKERS_TIMEOUT})
        _set_environment()
        keep_from_deadlock()
        be_quiet("distributed.nanny")
        client = Client(
            n_workers=self.workers or cores(),
            threads_per_worker=self.threads_per_worker,
            memory_limit=self.memory_limit,
            processes=True,
            dashboard_address="127.0.0.1:0",  # a free port; nothing outside can reach it
        )
        client.register_plugin(_QuietWorker())
        return client


class _QuietWorker(WorkerPlugin):
    """Keeps the tracebacks of failing jobs out of the terminal."""

    name = "deepprofile-quiet"

    def setup(self, worker: Worker) -> None:
        be_quiet("distributed.worker")


def be_quiet(logger: str) -> None:
    """Leave out what QUIET names of a logger of this process."""
    logging.getLogger(logger).addFilter(_is_needed)


def _is_needed(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(QUIET[record.name])


def keep_from_deadlock() -> None:
    """Turn Dask's profiler off in a Python in which it may stop a process for good.

    It calls ``sys._current_frames`` a hundred times a second. Before Python 3.11.9 this waits for
    ever if garbage is collected meanwhile and another thread comes or goes
    (github.com/python/cpython/issues/106883); Dask replaces such a worker after five minutes.
    """
    if sys.version_info < (3, 11, 9):
        dask.config.set({"distributed.worker.profile.enabled": False})


def _set_environment() -> None:
    """Have worker processes start with ENVIRONMENT; what the user has set stays.

    Dask leaves the values of an earlier cluster in this process's own environment, where they
    would count as the user's.
    """
    prefix = "distributed.nanny.pre-spawn-environ"
    for name, value in dask.config.get(prefix).items():
        if name in ENVIRONMENT and os.environ.get(name) == str(value):
            del os.environ[name]
    dask.config.set({f"{prefix}.{name}": value for name, value in ENVIRONMENT.items()})


def connect(spec: str | Path = LOCAL) -> Client:
    """A Dask client on the cluster that ``spec`` describes.

    Args:
        spec: path of a cluster file (``cluster/*.yaml``), the address of a running scheduler
            (``tcp://host:port``, ``tls://…``), or ``"local"`` for one worker process per core.

    Returns:
        A client; closing it also stops a cluster that this call started. Worker processes are
        spawned, so a script calls this under ``if __name__ == "__main__":``.

    Raises:
        ClusterError: if the file is not valid or no scheduler answers at the address.
    """
    text = str(spec)
    if text == LOCAL:
        return LocalSpec().connect()
    if "://" in text:
        return _join(text)
    return _read_spec(Path(text)).connect()


@contextmanager
def connected(spec: str | Path = LOCAL) -> Iterator[Client]:
    """A client, see `connect`, that is closed at the end of the ``with`` block.

    Worker processes that are slow to stop are killed; on a busy machine even that may take longer
    than Dask waits for it, which is no fault of what was done.
    """
    client = connect(spec)
    try:
        yield client
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr, flush=True)
        raise
    finally:
        with suppress(TimeoutError):
            client.close()


def _join(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {redacted(address)} ({redacted(str(error))}). "
            "Start one with `dask scheduler`, or give a file of cluster/ or 'local'."
        ) from None


def _read_spec(path: Path) -> LocalSpec:
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClusterError(
            f"cluster {path}: can't be read ({error.strerror}). "
            "Expected a file of cluster/, a scheduler address such as tcp://host:8786, or 'local'."
        ) from error
    except yaml.YAMLError as error:
        raise ClusterError(f"cluster {path}: is not valid YAML: {error}") from error
    try:
        return LocalSpec.model_validate(document or {})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, p['loc']))}: found {p['input']!r}, {p['msg']}"
            for p in error.errors()
        )
        allowed = ", ".join(LocalSpec.model_fields)
        raise ClusterError(f"cluster {path}: {problems}. Allowed keys: {allowed}") from error
