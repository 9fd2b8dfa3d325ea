"""Clusters on this machine: processes, and processes with a GPU each."""

from typing import Annotated, Literal

from distributed import Client
from pydantic import Field

from deepprofile.cluster.base import (
    GPU,
    LOOPBACK,
    ClusterError,
    Count,
    LimitedSpec,
    OwningClient,
    extra_module,
)
from deepprofile.cluster.process import cores, set_environment, worker_environment


class LocalSpec(LimitedSpec):
    """Worker processes on this machine.

    Attributes:
        workers: number of worker processes; null means one for each core.
        resources: Dask resources of each worker, such as ``{GPU: 8}``.
    """

    kind: Literal["local"] = "local"
    workers: Count | None = None
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)

    def start(self) -> Client:
        """Start the worker processes."""
        workers = self.workers or cores()
        set_environment(worker_environment(workers * self.threads_per_worker, cores()))
        return Client(
            n_workers=workers,
            threads_per_worker=self.threads_per_worker,
            memory_limit=self.memory_limit,
            processes=True,
            dashboard_address=LOOPBACK,
            resources=self.resources or None,
        )


class CudaSpec(LimitedSpec):
    """One worker process for each GPU of this machine (dask-cuda).

    Torch holds the memory of the GPU, in which neither RMM nor Dask's spilling has a part.

    Attributes:
        gpus: numbers of the GPUs; null means all that are visible.
    """

    kind: Literal["cuda"]
    threads_per_worker: Count = 8
    gpus: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None

    def start(self) -> Client:
        """Start a worker for each GPU."""
        module = extra_module(
            "dask_cuda", "cuda", "use cluster/gpu.yaml for a machine with one GPU"
        )
        n_gpus = len(self.gpus) if self.gpus else _visible_gpus()
        set_environment(worker_environment(n_gpus * self.threads_per_worker, cores()))
        cluster = module.LocalCUDACluster(
            CUDA_VISIBLE_DEVICES=self.gpus,
            threads_per_worker=self.threads_per_worker,
            memory_limit=self.memory_limit,
            device_memory_limit=None,
            rmm_pool_size=None,
            dashboard_address=LOOPBACK,
            resources={GPU: self.threads_per_worker},
        )
        return OwningClient(cluster)

    @property
    def has_gpus(self) -> bool:
        """See `ClusterSpec.has_gpus`."""
        return True


def _visible_gpus() -> int:
    import torch

    found = torch.cuda.device_count()
    if not found:
        raise ClusterError(
            "a cluster of kind cuda needs a GPU, and torch sees none on this machine. Look with "
            "nvidia-smi whether there is one, and install a torch with CUDA; or run without one "
            "(--cluster cluster/local.yaml)"
        )
    return found
