"""Cluster files: what they may say, and the clusters that they start."""

import importlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import dask
from dask.utils import parse_bytes, parse_timedelta
from distributed import Client
from distributed.security import Security
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from deepprofile.cluster.process import (
    PRELOAD,
    QuietWorker,
    be_quiet,
    cores,
    keep_from_deadlock,
    set_environment,
    worker_environment,
)
from deepprofile.places import redacted

ALLOWED_FAILURES = 1
"""Workers that a job may lose before it counts as failed: it would go on to kill the next."""
NO_WORKERS_TIMEOUT = "10 minutes"
"""How long jobs wait while no worker is left; then they fail, instead of waiting for ever."""
CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""
GPU = "GPU"
"""Dask resource of workers that have a GPU: as much as they have threads."""
LOOPBACK = "127.0.0.1:0"
"""Address of a dashboard on a free port that nothing outside this machine can reach."""


class ClusterError(ValueError):
    """A cluster that can't be described, started or reached; the message says what to do."""


def _a_size(value: str) -> str:
    if value != "auto":
        parse_bytes(value)
    return value


def _a_time(value: str) -> str:
    parse_timedelta(value)
    return value


Count = Annotated[int, Field(ge=1)]
Size = Annotated[str, AfterValidator(_a_size)]
Duration = Annotated[str, AfterValidator(_a_time)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(_Section):
    """Certificates for a scheduler at ``tls://…``.

    Attributes:
        ca_file: certificate of the authority that has signed the others.
        cert: own certificate.
        key: its key.
    """

    ca_file: str
    cert: str
    key: str

    def security(self) -> Security:
        """What Dask needs to know.

        Raises:
            ClusterError: if a file is not there.
        """
        for name, path in self.model_dump().items():
            if not Path(path).expanduser().is_file():
                raise ClusterError(f"tls.{name}: there is no file {path}. Expected a PEM file")
        files = {name: str(Path(path).expanduser()) for name, path in self.model_dump().items()}
        return Security(
            tls_ca_file=files["ca_file"],
            tls_client_cert=files["cert"],
            tls_client_key=files["key"],
            require_encryption=True,
        )


class Adaptive(_Section):
    """Workers that come and go with the work.

    Attributes:
        minimum: workers that stay.
        maximum: workers at most.
    """

    minimum: Annotated[int, Field(ge=0)] = 0
    maximum: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} exceeds maximum {self.maximum}")
        return self


class ClusterSpec(_Section, ABC):
    """What all cluster files have in common.

    Attributes:
        threads_per_worker: threads that run jobs in each worker process.
    """

    needs: ClassVar[str] = ""

    threads_per_worker: Count = 1

    def connect(self) -> Client:
        """Start the cluster, or join it.

        Raises:
            ClusterError: if it can't be started or reached.
        """
        dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_FAILURES})
        dask.config.set({"distributed.scheduler.no-workers-timeout": NO_WORKERS_TIMEOUT})
        keep_from_deadlock()
        be_quiet("distributed.nanny")
        client = self.start()
        client.register_plugin(QuietWorker())
        return client

    @abstractmethod
    def start(self) -> Client:
        """Start the cluster, or join it; a client of it."""


class LocalSpec(ClusterSpec):
    """Worker processes on this machine.

    Attributes:
        workers: number of worker processes; null means one for each core.
        memory_limit: memory of one worker ("6GiB"), or "auto" for an equal share of the machine.
        resources: Dask resources of each worker, such as ``{GPU: 8}``.
    """

    kind: Literal["local"] = "local"
    workers: Count | None = None
    memory_limit: Size = "auto"
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}

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


class CudaSpec(ClusterSpec):
    """One worker process for each GPU of this machine (dask-cuda).

    Torch holds the memory of the GPU, in which neither RMM nor Dask's spilling has a part.

    Attributes:
        gpus: numbers of the GPUs; null means all that are visible.
        memory_limit: main memory of one worker, or "auto".
    """

    needs: ClassVar[str] = "dask-cuda"

    kind: Literal["cuda"]
    threads_per_worker: Count = 8
    gpus: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    memory_limit: Size = "auto"

    def start(self) -> Client:
        """Start a worker for each GPU."""
        module = _extra("dask_cuda", "cuda", "use cluster/gpu.yaml for a machine with one GPU")
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
        return _OwningClient(cluster)  # type: ignore[no-untyped-call]


class SshSpec(ClusterSpec):
    """Worker processes on machines that SSH reaches, with the same Python environment.

    Attributes:
        hosts: names or addresses: of the scheduler, then of the machines of the workers.
        workers_per_host: worker processes on each machine.
        cores_per_host: cores of each machine that they share.
        memory_limit: memory of one worker, or "auto".
        python: Python on the machines; null means the path of this one.
        user: name to log in with; null means what SSH is configured for.
        keys: private keys; empty for what SSH is configured for.
        known_hosts: file of known hosts; null means the user's own.
    """

    needs: ClassVar[str] = "asyncssh"

    kind: Literal["ssh"]
    hosts: Annotated[list[str], Field(min_length=2)]
    workers_per_host: Count = 1
    cores_per_host: Count = 1
    memory_limit: Size = "auto"
    python: str | None = None
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    keys: list[str] = []
    known_hosts: str | None = None

    def start(self) -> Client:
        """Start scheduler and workers on the machines."""
        _extra("asyncssh", "ssh", "use another file of cluster/")
        from distributed import SSHCluster

        threads = self.workers_per_host * self.threads_per_worker
        set_environment(worker_environment(threads, self.cores_per_host))
        known = {"known_hosts": self.known_hosts} if self.known_hosts else {}
        options = {"username": self.user, "client_keys": self.keys or None, "port": self.port}
        chosen = {name: value for name, value in options.items() if value is not None}
        cluster = _started(
            f"ssh {', '.join(self.hosts)}",
            lambda: SSHCluster(
                self.hosts,
                connect_options={**chosen, **known},
                worker_options={
                    "nthreads": self.threads_per_worker,
                    "memory_limit": self.memory_limit,
                    "n_workers": self.workers_per_host,
                },
                scheduler_options={"dashboard_address": ":0"},
                remote_python=self.python,
            ),
        )
        return _OwningClient(cluster)  # type: ignore[no-untyped-call]


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

    needs: ClassVar[str] = "dask-jobqueue"

    kind: Literal["slurm"]
    jobs: Count | None = None
    adaptive: Adaptive | None = None
    cores: Count
    memory: Size
    queue: str | None = None
    account: str | None = None
    walltime: str = "08:00:00"
    gpus: Annotated[int, Field(ge=0)] = 0
    directives: list[str] = []
    prologue: list[str] = []
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
        cluster = _started("slurm", self.cluster)
        if self.adaptive is not None:
            cluster.adapt(minimum_jobs=self.adaptive.minimum, maximum_jobs=self.adaptive.maximum)
        else:
            cluster.scale(jobs=self.jobs)
        return _OwningClient(cluster)  # type: ignore[no-untyped-call]

    def cluster(self) -> Any:
        """The cluster without any batch job yet; ``job_script()`` says what will be submitted."""
        module = _extra("dask_jobqueue", "slurm", "run on the machine itself (cluster/local.yaml)")
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

    needs: ClassVar[str] = "dask-kubernetes"

    kind: Literal["kubernetes"]
    image: str
    name: str = "deepprofile"
    namespace: str | None = None
    workers: Count | None = None
    adaptive: Adaptive | None = None
    cores: Count = 1
    memory: Size = "8GiB"
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    environment: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.workers is None) == (self.adaptive is None):
            raise ValueError("give either workers or adaptive")
        return self

    def start(self) -> Client:
        """Make the scheduler and the workers."""
        module = _extra("dask_kubernetes.operator", "kubernetes", "use another file of cluster/")
        cluster = _started("kubernetes", lambda: module.KubeCluster(**self.options()))
        if self.adaptive is not None:
            cluster.adapt(minimum=self.adaptive.minimum, maximum=self.adaptive.maximum)
        return _OwningClient(cluster)  # type: ignore[no-untyped-call]

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


class AddressSpec(ClusterSpec):
    """A scheduler that runs already.

    Attributes:
        address: ``tcp://host:port`` or ``tls://host:port``.
        tls: certificates for ``tls://``.
    """

    kind: Literal["address"]
    address: Annotated[str, Field(pattern=r"^[a-z]+://")]
    tls: Tls | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tls is not None and not self.address.startswith("tls://"):
            raise ValueError(f"address {redacted(self.address)}: with tls expected tls://…")
        return self

    def start(self) -> Client:
        """Join the scheduler."""
        security = self.tls.security() if self.tls else None
        try:
            return Client(self.address, timeout=CONNECT_SECONDS, security=security)
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(
                f"no Dask scheduler answers at {redacted(self.address)} "
                f"({redacted(str(error))}). Start one with `dask scheduler`, or give a file of "
                f"cluster/ or 'local'.{self._hint(error)}"
            ) from None

    def _hint(self, error: Exception) -> str:
        if not self.address.startswith("tls://"):
            return ""
        if self.tls is None:
            return (
                " A scheduler at tls:// needs certificates: name them in a cluster file (kind: "
                "address, tls: {ca_file, cert, key}), or in Dask's configuration."
            )
        return " Look whether the certificates are those of this scheduler, and still valid."


SPECS: dict[str, type[ClusterSpec]] = {
    "local": LocalSpec,
    "cuda": CudaSpec,
    "ssh": SshSpec,
    "slurm": SlurmSpec,
    "kubernetes": KubernetesSpec,
    "address": AddressSpec,
}
"""Kinds of cluster files."""


def _extra(module: str, extra: str, otherwise: str) -> Any:
    """A module that only some clusters need."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ClusterError(
            f"a cluster of kind {extra} needs the library {module.split('.')[0]}, which can't be "
            f'imported ({error}). Install it with pip install "deepprofile[{extra}]", or '
            f"{otherwise}"
        ) from None


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


def _started(what: str, start: Callable[[], Any]) -> Any:
    try:
        return start()
    except ClusterError:
        raise
    except Exception as error:  # each kind of cluster has errors of its own
        logging.getLogger(__name__).debug("cluster %s", what, exc_info=True)
        raise ClusterError(
            f"the cluster can't be started ({what}): {type(error).__name__}: {redacted(str(error))}"
        ) from error


class _OwningClient(Client):
    """A client that stops its cluster when it is closed."""

    def close(self, *args: Any, **kwargs: Any) -> Any:
        cluster = self.cluster
        result = super().close(*args, **kwargs)  # type: ignore[no-untyped-call]
        if cluster is not None:
            cluster.close()
        return result
