"""The cluster of a run in one line: workers, threads, memory, dashboard."""

from dataclasses import dataclass

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
    """

    workers: int
    threads: int
    memory: int
    dashboard: str
    elastic: str = ""

    @property
    def line(self) -> str:
        """For people."""
        workers = workers_text(self.workers)
        if self.elastic:
            workers += f" now, {self.elastic} as needed"
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        memory = f", {format_bytes(self.memory)}" if self.memory else ""
        link = f"dashboard {self.dashboard}" if self.dashboard else f"no dashboard ({INSTALL})"
        return f"{workers}, {threads}{memory}; {link}"


def state_of(client: Client, elastic: str = "") -> ClusterState:
    """The present state of a client's cluster."""
    workers = workers_of(client).values()
    return ClusterState(
        workers=len(workers),
        threads=sum(worker["nthreads"] for worker in workers),
        memory=sum(worker["memory_limit"] or 0 for worker in workers),
        dashboard=str(client.dashboard_link) if _has_dashboard(client) else "",
        elastic=elastic,
    )


def _has_dashboard(client: Client) -> bool:
    """Whether the link leads anywhere: without bokeh in the scheduler it does not."""
    try:
        return bool(client.run_on_scheduler(_serves_pages))
    except Exception:  # a scheduler without deepprofile
        return False


def _serves_pages(dask_scheduler: Scheduler) -> bool:
    return bool(dask_scheduler.http_application.applications)


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
