"""Whether workers have the memory that their jobs need, before any is started."""

from collections.abc import Sequence
from dataclasses import dataclass

from distributed import Client

from deepprofile.cluster.base import ClusterSpec
from deepprofile.store.jobs import NO_WORKERS, JobError, workers_of


@dataclass(frozen=True)
class Need:
    """Memory that jobs of one kind need.

    Attributes:
        what: what the jobs do, for messages.
        job: predicted peak memory of one job in bytes, beside that of its worker.
        worker: what a worker takes before its jobs, in bytes.
        n_jobs: how many a worker has at once at most; None: one for each of its threads.
    """

    what: str
    job: int
    worker: int = 0
    n_jobs: int | None = None

    def at_once(self, threads: int) -> int:
        """Jobs that a worker of some threads has at once."""
        return threads if self.n_jobs is None else min(threads, self.n_jobs)

    def total(self, threads: int) -> int:
        """Bytes that a worker of some threads needs."""
        return self.worker + self.at_once(threads) * self.job

    def text(self, threads: int) -> str:
        """What a worker of some threads needs, in words."""
        count = self.at_once(threads)
        jobs = "for its job" if count == 1 else f"for each of {count} jobs at once"
        return (
            f"{self.what} needs {size_text(self.total(threads))}, that is {size_text(self.worker)} "
            f"for the worker and {size_text(self.job)} {jobs}"
        )


def too_large(needs: Sequence[Need], limit: int | None, threads: int) -> list[Need]:
    """What does not fit into a worker.

    Args:
        needs: of jobs that run one kind after another.
        limit: memory of the worker in bytes; None or 0: no limit.
        threads: threads of the worker.
    """
    return [need for need in needs if limit and need.total(threads) > limit]


def check_memory(client: Client, needs: Sequence[Need]) -> None:
    """Refuse jobs that can't fit into the workers that are there.

    Args:
        client: client of the cluster.
        needs: of the jobs.

    Raises:
        JobError: if a worker's memory limit is less than the worker and its jobs take, or there is
            no worker; it names all jobs that don't fit.
    """
    workers = workers_of(client)
    if needs and not workers:
        raise JobError(f"{', '.join(need.what for need in needs)}: {NO_WORKERS}")
    for address, worker in workers.items():
        limit, threads = worker["memory_limit"], worker["nthreads"]
        if large := too_large(needs, limit, threads):
            raise JobError(
                f"worker {address} has {size_text(limit)} of memory, which is too little: "
                f"{_texts(large, threads)}. Give the workers more memory or fewer threads: "
                "memory_limit (of kubernetes memory) and threads_per_worker of the cluster file, "
                "of slurm memory and cores, or --memory-limit and --nthreads of `dask worker`."
            )


def check_spec(spec: ClusterSpec, name: str, needs: Sequence[Need]) -> None:
    """Refuse jobs that can't fit into the workers that a cluster file describes.

    Args:
        spec: the cluster; where it does not say what memory a worker has, all is well.
        name: its file.
        needs: of the jobs.

    Raises:
        JobError: names all jobs that don't fit, what the file gives and what to change.
    """
    memory, threads = spec.worker_memory, spec.threads_per_worker
    if memory is not None and (large := too_large(needs, memory.size, threads)):
        raise JobError(
            f"cluster {name}: a worker has {size_text(memory.size)} of memory ({memory.given}), "
            f"which is too little: {_texts(large, threads)}. Give the file {memory.more}. Nothing "
            "was started."
        )


def _texts(needs: Sequence[Need], threads: int) -> str:
    return "; ".join(need.text(threads) for need in needs)


def size_text(n_bytes: float) -> str:
    """A number of bytes in decimal units, as sizes are printed by ``deepprofile plan``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if n_bytes >= 100 or unit == "B" else f"{n_bytes:.1f} {unit}"
