"""Clusters of batch jobs."""

from typing import Annotated, Any, Literal, Self

from distributed import Client
from pydantic import Field, model_validator

from deepprofile.cluster.base import (
    GPU,
    Adaptive,
    ClusterSpec,
    Count,
    OwningClient,
    Size,
    extra_module,
    started,
)
from deepprofile.cluster.process import PRELOAD


class SlurmSpec(ClusterSpec):
    """Batch jobs of Slurm, each with some worker processes (dask-jobqueue).

    Attributes:
        jobs: number of batch jobs, or null with ``adaptive``.
        adaptive: batch jobs that come and go with the work.
        cores: cores of a batch job; it has ``cores / threads_per_worker`` worker processes.
        memory: memory of a batch job.
        queue: partition.
        account: account.
        walltime: longest time of a batch job, such as ``"08:00:00"``.
        gpus: GPUs of a batch job; each has one worker process then.
        directives: more options of sbatch, such as ``"--constraint=epyc"``.
        prologue: lines of shell that a batch job runs first, such as ``module load cuda``.
        interface: network interface that workers and scheduler use, such as ``ib0``.
        local_directory: folder on the node for temporary files.
        log_directory: folder for the output of batch jobs.
        python: Python on the nodes; null means the path of this one.
    """

    kind: Literal["slurm"]
    jobs: Count | None = None
    adaptive: Adaptive | None = None
    cores: Count
    memory: Size
    queue: str | None = None
    account: str | None = None
    walltime: str = "08:00:00"
    gpus: Annotated[int, Field(ge=0)] = 0
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
        if self.cores < self.threads_per_worker * max(self.gpus, 1):
            raise ValueError(
                f"cores {self.cores} are fewer than threads_per_worker {self.threads_per_worker}"
                + (f" for each of {self.gpus} GPUs" if self.gpus else "")
            )
        return self

    def start(self) -> Client:
        """Submit the batch jobs; the scheduler runs in this process."""
        cluster = started("slurm", self.cluster)
        if self.adaptive is not None:
            cluster.adapt(minimum_jobs=self.adaptive.minimum, maximum_jobs=self.adaptive.maximum)
        else:
            cluster.scale(jobs=self.jobs)
        return OwningClient(cluster)  # type: ignore[no-untyped-call]

    def cluster(self) -> Any:
        """The cluster without any batch job yet; ``job_script()`` says what will be submitted."""
        module = extra_module("dask_jobqueue", "slurm", "use another cluster")
        processes = self.gpus or self.cores // self.threads_per_worker
        extra = ["--preload-nanny", PRELOAD]
        if self.gpus:
            extra += ["--resources", f"{GPU}={self.threads_per_worker}"]
        directives = [*self.directives, *([f"--gpus={self.gpus}"] if self.gpus else [])]
        return module.SLURMCluster(
            cores=processes * self.threads_per_worker,
            processes=processes,
            memory=self.memory,
            job_cpu=self.cores,
            queue=self.queue,
            account=self.account,
            walltime=self.walltime,
            job_extra_directives=directives,
            job_script_prologue=[f"export DEEPPROFILE_PROCESSES={processes}", *self.prologue],
            worker_extra_args=extra,
            interface=self.interface,
            local_directory=self.local_directory,
            log_directory=self.log_directory,
            python=self.python,
            scheduler_options={"dashboard_address": ":0"},
        )
