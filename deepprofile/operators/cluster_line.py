"""The cluster of a run in one line: workers, threads, memory, dashboard."""

from dataclasses import dataclass
from importlib import import_module

from dask.utils import format_bytes
from distributed import Client, Scheduler

from deepprofile.cluster.base import ClusterSpec
from deepprofile.cluster.slurm import SlurmSpec
from deepprofile.events import workers_text
from deepprofile.operators.metrics import INSTALL
from deepprofile.store.jobs import workers_of


@dataclass(frozen=True)
class ClusterState:
    """A cluster as a run finds it.

    Attributes:
        workers: number of workers.
        threads: their threads.
        memory: bytes that they may use together; 0 where none has a limit.
        dashboard: the link; empty if there is none.
        elastic: workers that come and go with the work, such as ``0 to 20 batch jobs``.
        lacks: what to install for a dashboard; empty if nothing is missing.
    """

    workers: int
    threads: int
    memory: int
    dashboard: str
    elastic: str = ""
    lacks: str = ""

    @property
    def line(self) -> str:
        """For people."""
        workers = workers_text(self.workers)
        if self.elastic:
            workers += f" now, {self.elastic} as needed"
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        memory = f", {format_bytes(self.memory)}" if self.memory else ""
        without = f"no dashboard ({self.lacks})" if self.lacks else "no dashboard"
        link = f"dashboard {self.dashboard}" if self.dashboard else without
        return f"{workers}, {threads}{memory}; {link}"


def state_of(client: Client, elastic: str = "") -> ClusterState:
    """The present state of a client's cluster."""
    workers, pages = workers_of(client).values(), _pages_of(client)
    return ClusterState(
        workers=len(workers),
        threads=sum(worker["nthreads"] for worker in workers),
        memory=sum(worker["memory_limit"] or 0 for worker in workers),
        dashboard=str(client.dashboard_link) if pages == "served" else "",
        elastic=elastic,
        lacks=INSTALL if pages == "missing" else "",
    )


def _pages_of(client: Client) -> str:
    """Whether the dashboard's link leads anywhere: ``served``, ``missing`` bokeh, or neither."""
    try:
        return str(client.run_on_scheduler(_pages))
    except Exception:  # a scheduler without deepprofile
        return ""


def _pages(dask_scheduler: Scheduler) -> str:
    if dask_scheduler.http_application.applications:
        return "served"
    try:
        import_module("distributed.dashboard.scheduler")
    except ImportError:
        return "missing"
    return "off"


def elastic_range(spec: ClusterSpec) -> str:
    """Workers that a cluster has as needed, such as ``0 to 20 batch jobs``; empty if it does not.

    Args:
        spec: what a file of ``cluster/``, a scheduler's address or ``local`` says.
    """
    adaptive = getattr(spec, "adaptive", None)
    if adaptive is None:
        return ""
    unit = "batch jobs" if isinstance(spec, SlurmSpec) else "workers"
    return f"{adaptive.minimum} to {adaptive.maximum} {unit}"
