"""Clusters of pods."""

import atexit
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from secrets import token_hex
from typing import Annotated, Any, Literal, Self

from dask.utils import parse_bytes, parse_timedelta
from distributed import Client
from pydantic import Field, model_validator

from deepprofile.cluster.base import (
    ALLOWED_FAILURES,
    GPU,
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
from deepprofile.cluster.preload import CORES
from deepprofile.cluster.process import PRELOAD

SCHEDULER = ("dask", "scheduler", "--host", "0.0.0.0")
"""Command of the scheduler's pod; the operator's own names a script that Dask has no more."""
SCHEDULER_AMOUNTS = {"cpu": "1", "memory": "2Gi"}
"""Cores and memory of the scheduler's pod, which needs no GPU."""
METRICS_PORTS = {"scheduler": "8787", "worker": "8788"}
"""Ports on which the pods serve their metrics."""
SUFFIX_BYTES = 3
"""Of the random end of a cluster's name: no two drivers may have the same cluster, as the first
that ends takes it away."""
LONGEST_NAME = 53 - 1 - 2 * SUFFIX_BYTES
"""Characters of a name: Kubernetes has 63, of which the operator takes ``-scheduler``."""

ADVICE = (
    "Try `kubectl get daskclusters` here. It needs an API server (`kubectl config "
    "current-context`; the variable KUBECONFIG names a file for another one; in a pod, a service "
    "account), Dask's operator in it, and the right to make such resources: see deploy/README.md"
)
"""What to do where a cluster can't be made."""


class KubernetesSpec(ClusterSpec):
    """Pods of a Kubernetes cluster with Dask's operator (dask-kubernetes).

    Attributes:
        image: container image of scheduler and workers, see ``deploy/``.
        name: of the Dask cluster; each has a few random characters more.
        namespace: where it is made; null for the current one.
        workers: number of workers, or null with ``adaptive``.
        adaptive: workers that come and go with the work.
        cores: cores of a worker.
        memory: memory of a worker.
        gpus: GPUs of a worker, 0 or 1.
        environment: of workers and scheduler, such as the region of an object store.
        secret: a Kubernetes secret whose keys are further variables of the workers' environment,
            such as the credentials of an object store.
        service_account: of workers and scheduler, where it stands for credentials.
        idle_timeout: how long a cluster may have nothing to do until the operator removes it, as
            when its driver was killed.
    """

    kind: Literal["kubernetes"]
    image: str
    name: Annotated[
        str, Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=LONGEST_NAME)
    ] = "deepprofile"
    namespace: str | None = None
    workers: Count | None = None
    adaptive: Adaptive | None = None
    cores: Count = 1
    memory: Amount = "8GiB"
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    environment: dict[str, str] = Field(default_factory=dict)
    secret: str | None = None
    service_account: str | None = None
    idle_timeout: Time = "1 hour"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.workers is None) == (self.adaptive is None):
            raise ValueError("give either workers or adaptive")
        return self

    def start(self) -> Client:
        """Make the scheduler and the workers."""
        module = extra_module("dask_kubernetes.operator", "kubernetes", "use another cluster")
        resource = self.resource()
        options = {
            "namespace": self.namespace,
            "create_mode": module.kubecluster.kubecluster.CreateMode.CREATE_ONLY,
            "shutdown_on_close": True,
            "quiet": True,
        }
        _have_quiet_at_exit(module.kubecluster.kubecluster.reap_clusters)
        cluster = started(
            "kubernetes",
            lambda: module.KubeCluster(custom_cluster_spec=resource, **options),
            ADVICE,
        )
        client = OwningClient(cluster)
        most = self.adaptive.maximum if self.adaptive is not None else self.workers or 0
        client.most_threads = most * self.threads_per_worker
        client.advice = (
            f"Look at `kubectl get pods --selector dask.org/cluster-name={cluster.name}` and "
            "`kubectl describe pod`: the image, and whether nodes have room for the cores and "
            "memory. Then adapt the cluster file, or give it a longer workers_timeout."
        )
        return client

    def adapt(self, cluster: Any) -> None:
        """See `ClusterSpec.adapt`."""
        if self.adaptive is not None:
            cluster.adapt(minimum=self.adaptive.minimum, maximum=self.adaptive.maximum)

    def resource(self) -> dict[str, Any]:
        """The resource ``DaskCluster`` of which the operator makes the pods; each has its own name.

        Raises:
            ClusterError: if dask-kubernetes is missing.
        """
        module = extra_module("dask_kubernetes.operator", "kubernetes", "use another cluster")
        made: dict[str, Any] = module.make_cluster_spec(**self.options())
        for role, port in METRICS_PORTS.items():
            part = made["spec"][role]
            part["metadata"] = {
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": port}
            }
            if self.service_account:
                part["spec"]["serviceAccountName"] = self.service_account
        if self.secret:
            (container,) = made["spec"]["worker"]["spec"]["containers"]
            container["envFrom"] = [{"secretRef": {"name": self.secret}}]
        (container,) = made["spec"]["scheduler"]["spec"]["containers"]
        container["args"] = list(SCHEDULER)
        container["resources"] = {"requests": SCHEDULER_AMOUNTS, "limits": SCHEDULER_AMOUNTS}
        settings = self.environment | {
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(ALLOWED_FAILURES),
            "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": self.workers_timeout,
            # Where the scheduler has no limit, the operator sets one of five minutes in it, at
            # which it ends. This one is longer than the operator's own, which takes all away.
            "DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT": f"{2 * self._idle_seconds}s",
        }
        container["env"] = [{"name": key, "value": value} for key, value in settings.items()]
        return made

    def options(self) -> dict[str, Any]:
        """Arguments of ``dask_kubernetes.operator.make_cluster_spec``."""
        amounts = {"cpu": str(self.cores), "memory": self._memory}
        if self.gpus:
            amounts["nvidia.com/gpu"] = str(self.gpus)
        command = [
            *("dask", "worker", "--nthreads", str(self.threads_per_worker)),
            *("--memory-limit", self._memory, "--preload-nanny", PRELOAD),
            *(("--resources", f"{GPU}={self.threads_per_worker}") if self.gpus else ()),
        ]
        return {
            "name": f"{self.name}-{token_hex(SUFFIX_BYTES)}",
            "image": self.image,
            "n_workers": self.workers or max(1, self.adaptive.minimum if self.adaptive else 0),
            "resources": {"requests": amounts, "limits": amounts},
            "env": {CORES: str(self.cores), **self.environment},
            "worker_command": command,
            "idle_timeout": self._idle_seconds,
        }

    @property
    def worker_memory(self) -> WorkerMemory | None:
        """See `ClusterSpec.worker_memory`."""
        more = "a larger memory, or fewer threads_per_worker"
        return WorkerMemory(parse_bytes(self.memory), f"memory: {self.memory}", more)

    @property
    def has_gpus(self) -> bool:
        """See `ClusterSpec.has_gpus`."""
        return self.gpus > 0

    @property
    def _idle_seconds(self) -> int:
        """In the form of the operator: whole seconds."""
        return ceil(parse_timedelta(self.idle_timeout))

    @property
    def _memory(self) -> str:
        """In the form of Kubernetes: bytes."""
        return str(parse_bytes(self.memory))


def _have_quiet_at_exit(reap: Callable[[], None]) -> None:
    """Let dask-kubernetes take away at exit what a stopped start has left, without a traceback.

    It tries also where nothing could be made, as no API was reached.
    """
    atexit.unregister(reap)
    atexit.unregister(_quietly)
    atexit.register(_quietly, reap)


def _quietly(reap: Callable[[], None]) -> None:
    with suppress(Exception):
        reap()
