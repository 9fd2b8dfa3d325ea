"""Clusters of pods."""

from typing import Annotated, Any, Literal, Self

from dask.utils import parse_bytes
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


class KubernetesSpec(ClusterSpec):
    """Pods of a Kubernetes cluster with Dask's operator (dask-kubernetes).

    Attributes:
        image: container image of scheduler and workers, see ``deploy/``.
        name: of the Dask cluster.
        namespace: where it is made; null for the current one.
        workers: number of workers, or null with ``adaptive``.
        adaptive: workers that come and go with the work.
        cores: cores of a worker.
        memory: memory of a worker.
        gpus: GPUs of a worker, 0 or 1.
        environment: of workers and scheduler, such as the region of an object store. Secrets
            belong into a Kubernetes secret that the image's service account reads.
    """

    kind: Literal["kubernetes"]
    image: str
    name: str = "deepprofile"
    namespace: str | None = None
    workers: Count | None = None
    adaptive: Adaptive | None = None
    cores: Count = 1
    memory: Size = "8GiB"
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    environment: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.workers is None) == (self.adaptive is None):
            raise ValueError("give either workers or adaptive")
        return self

    def start(self) -> Client:
        """Make the scheduler and the workers."""
        module = extra_module("dask_kubernetes.operator", "kubernetes", "use another cluster")
        cluster = started("kubernetes", lambda: module.KubeCluster(**self.options()))
        if self.adaptive is not None:
            cluster.adapt(minimum=self.adaptive.minimum, maximum=self.adaptive.maximum)
        return OwningClient(cluster)  # type: ignore[no-untyped-call]

    def options(self) -> dict[str, Any]:
        """Arguments of ``dask_kubernetes.operator.KubeCluster``."""
        amounts = {"cpu": str(self.cores), "memory": self._memory}
        if self.gpus:
            amounts["nvidia.com/gpu"] = str(self.gpus)
        command = [
            *("dask", "worker", "--nthreads", str(self.threads_per_worker)),
            *("--memory-limit", self._memory, "--preload-nanny", PRELOAD),
            *(("--resources", f"{GPU}={self.threads_per_worker}") if self.gpus else ()),
        ]
        return {
            "name": self.name,
            "namespace": self.namespace,
            "image": self.image,
            "n_workers": self.workers or (self.adaptive.minimum if self.adaptive else 0),
            "resources": {"requests": amounts, "limits": amounts},
            "env": self.environment,
            "worker_command": command,
        }

    @property
    def _memory(self) -> str:
        """In the form of Kubernetes: bytes."""
        return str(parse_bytes(self.memory))
