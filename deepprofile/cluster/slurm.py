"""Clusters of batch jobs."""

import math
import re
from typing import Annotated, Any, Literal, Self

from dask.utils import parse_bytes, parse_timedelta
from distributed import Client
from pydantic import AfterValidator, BeforeValidator, model_validator

from deepprofile.cluster.base import (
    GPU,
    LOOPBACK,
    Adaptive,
    Amount,
    ClusterSpec,
    Count,
    OwningClient,
    Time,
    WorkerMemory,
    extra_module,
    started,
)
from deepprofile.cluster.batch_jobs import WholeJobs, batch_job, look, replacing, try_to_submit
from deepprofile.cluster.preload import CORES, PROCESSES
from deepprofile.cluster.process import PRELOAD

ADAPT_SECONDS = 1.0
"""Seconds between two looks at how many workers the work asks for."""
LEAVE_SECONDS = 300
"""Workers leave so long before the walltime ends, or after four fifths of a short one."""
NO_LIMIT = ("UNLIMITED", "INFINITE")
"""Slurm's words for no walltime."""


class AdaptiveJobs(Adaptive):
    """Batch jobs that come and go with the work.

    Attributes:
        keep_idle: how long a batch job without work stays: a new one may have to queue.
    """

    keep_idle: Time = "5 minutes"


def walltime_seconds(walltime: str) -> int:
    """Seconds of a walltime; 0 for no limit.

    Args:
        walltime: in one of the forms that sbatch takes: ``minutes``, ``minutes:seconds``,
            ``hours:minutes:seconds``, ``days-hours``, ``days-hours:minutes``,
            ``days-hours:minutes:seconds``, or a word for no limit.

    Raises:
        ValueError: if it is none of them.
    """
    if walltime.upper() in NO_LIMIT:
        return 0
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", walltime)
    if found is None:
        raise ValueError('expected a time as sbatch takes it, such as "08:00:00" or "2-00:00:00"')
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is None and len(numbers) < 3:  # minutes come first
        numbers.insert(0, 0)
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _in_quotes(value: Any) -> Any:
    if isinstance(value, int):  # YAML takes 12:00:00 for a number in base 60
        raise ValueError('expected a time in quotation marks, such as "08:00:00"')
    return value


def _a_walltime(value: str) -> str:
    walltime_seconds(value)
    return value


Walltime = Annotated[str, AfterValidator(_a_walltime), BeforeValidator(_in_quotes)]


def _for_one_worker(gpus: int) -> int:
    if gpus not in (0, 1):
        raise ValueError(
            "expected 0 or 1: the workers of a batch job would all take the first of its GPUs. "
            "Have one batch job for each GPU: gpus: 1, with jobs, cores and memory to match"
        )
    return gpus


class SlurmSpec(ClusterSpec):
    """Batch jobs of Slurm, each with some worker processes (dask-jobqueue).

    Attributes:
        jobs: number of batch jobs, or null with ``adaptive``.
        adaptive: batch jobs that come and go with the work.
        workers_timeout: how long batch jobs may be queued while no worker is there.
        cores: cores of a batch job; it has ``cores / threads_per_worker`` worker processes.
        memory: memory of a batch job.
        queue: partition.
        account: account.
        walltime: longest time of a batch job, such as ``"08:00:00"``. Workers leave in order a
            little before: what they were doing goes on in another batch job, and what takes
            longer, such as a training, does not count as failed.
        gpus: GPUs of a batch job, 0 or 1; with one it has one worker process.
        directives: more options of sbatch, such as ``"--constraint=epyc"``.
        prologue: lines of shell that a batch job runs first, such as ``module load cuda``.
        interface: network interface that workers and scheduler use, such as ``ib0``.
        local_directory: folder on the node for temporary files.
        log_directory: folder for the output of batch jobs.
        python: Python on the nodes; null means the path of this one.
    """

    kind: Literal["slurm"]
    workers_timeout: Time = "4 hours"
    jobs: Count | None = None
    adaptive: AdaptiveJobs | None = None
    cores: Count
    memory: Amount
    queue: str | None = None
    account: str | None = None
    walltime: Walltime = "08:00:00"
    gpus: Annotated[int, AfterValidator(_for_one_worker)] = 0
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    interface: str | None = None
    local_directory: str | None = None
    log_directory: str | None = None
    python: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.jobs is None) == (self.adaptive is None):
            raise ValueError("give either jobs or adaptive")
        if self.cores < self.threads_per_worker:
            raise ValueError(
                f"cores {self.cores} are fewer than threads_per_worker {self.threads_per_worker}"
            )
        return self

    def start(self) -> Client:
        """Submit the batch jobs; the scheduler runs in this process."""
        cluster = started("slurm", self.cluster)
        try:
            try_to_submit(cluster.job_script(), self.model_dump())
        except BaseException:
            cluster.close()
            raise
        cluster.scale(jobs=self.jobs or max(1, self.adaptive.minimum if self.adaptive else 0))
        client = OwningClient(cluster)
        most = self.adaptive.maximum if self.adaptive is not None else self.jobs or 0
        client.most_threads = most * self._processes * self.threads_per_worker
        output = self.log_directory or "slurm-*.out"
        client.outlook = lambda: look(cluster, output)
        client.advice = (
            f"Look at `squeue --me`, and at what the batch jobs wrote ({output}). Give the cluster "
            "file another queue, less cores, memory or walltime, or a longer workers_timeout."
        )
        return client

    def adapt(self, cluster: Any) -> None:
        """See `ClusterSpec.adapt`."""
        if self.adaptive is None:
            return
        cluster.adapt(
            Adaptive=WholeJobs,
            minimum_jobs=self.adaptive.minimum,
            maximum_jobs=self.adaptive.maximum,
            interval=ADAPT_SECONDS,
            wait_count=math.ceil(parse_timedelta(self.adaptive.keep_idle) / ADAPT_SECONDS),
            worker_key=batch_job if self._processes > 1 else None,
        )

    @property
    def worker_memory(self) -> WorkerMemory | None:
        """See `ClusterSpec.worker_memory`."""
        n, given = self._processes, f"memory: {self.memory}"
        fewer = "threads_per_worker"
        if n > 1:
            given += f" for {n} workers of a batch job, cores / threads_per_worker"
            fewer = "cores"
        elif not self.gpus:  # fewer threads alone make more workers of the same memory
            fewer = "cores and threads_per_worker"
        return WorkerMemory(
            parse_bytes(self.memory) // n, given, f"a larger memory, or fewer {fewer}"
        )

    @property
    def has_gpus(self) -> bool:
        """See `ClusterSpec.has_gpus`."""
        return self.gpus > 0

    @property
    def _processes(self) -> int:
        """Worker processes of a batch job."""
        return self.gpus or self.cores // self.threads_per_worker

    def cluster(self) -> Any:
        """The cluster without any batch job yet; ``job_script()`` says what will be submitted."""
        module = extra_module("dask_jobqueue", "slurm", "use another cluster")
        extra = ["--preload-nanny", PRELOAD]
        if self.gpus:
            extra += ["--resources", f"{GPU}={self.threads_per_worker}"]
        if limit := walltime_seconds(self.walltime):
            extra += ["--lifetime", f"{max(limit - LEAVE_SECONDS, 4 * limit // 5)}s"]
        directives = [*self.directives, *([f"--gpus={self.gpus}"] if self.gpus else [])]
        exports = [f"export {PROCESSES}={self._processes}", f"export {CORES}={self.cores}"]
        return replacing(module.SLURMCluster)(
            cores=self._processes * self.threads_per_worker,
            processes=self._processes,
            memory=self.memory,
            job_cpu=self.cores,
            queue=self.queue,
            account=self.account,
            walltime=self.walltime,
            job_extra_directives=directives,
            job_script_prologue=[*exports, *self.prologue],
            worker_extra_args=extra,
            interface=self.interface,
            local_directory=self.local_directory,
            log_directory=self.log_directory,
            python=self.python,
            scheduler_options={"dashboard_address": LOOPBACK},
        )
