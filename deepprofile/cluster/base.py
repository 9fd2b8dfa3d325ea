"""What all cluster files have in common."""

import importlib
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Self

import dask
from dask.utils import parse_bytes, parse_timedelta
from distributed import Client
from distributed.core import Status
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from deepprofile.cluster.process import QuietWorker, be_quiet, keep_from_deadlock
from deepprofile.places import redacted

ALLOWED_FAILURES = 1
"""Workers that a job may lose before it counts as failed: it would go on to kill the next."""
GPU = "GPU"
"""Dask resource of workers that have a GPU: as much as they have threads."""
LOOPBACK = "127.0.0.1:0"
"""Address of a dashboard on a free port that nothing outside this machine can reach."""
LEAST_SIZE = 2**20
"""Bytes of memory of a worker below which a unit was forgotten."""


class ClusterError(ValueError):
    """A cluster that can't be described, started or reached; the message says what to do."""


def _a_size(value: str) -> str:
    size = 0 if value == "auto" else parse_bytes(value)
    if size < 0 or 1 < size < LEAST_SIZE:
        raise ValueError("expected auto, or an amount with its unit such as 6GiB")
    return value


def _an_amount(value: str) -> str:
    if parse_bytes(value) <= 0:
        raise ValueError("expected an amount above 0, such as 16GiB")
    return value


def _a_time(value: str) -> str:
    try:
        seconds = parse_timedelta(value)
    except (KeyError, ValueError):
        raise ValueError("expected a time such as 10 minutes") from None
    if seconds <= 0:
        raise ValueError("expected a time above 0")
    return value


Count = Annotated[int, Field(ge=1)]
Size = Annotated[str, AfterValidator(_a_size)]
Amount = Annotated[str, AfterValidator(_an_amount)]
Time = Annotated[str, AfterValidator(_a_time)]


class Section(BaseModel):
    """Part of a cluster file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Adaptive(Section):
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


@dataclass(frozen=True)
class WorkerMemory:
    """Memory of a worker process, as a cluster file gives it.

    Attributes:
        size: in bytes.
        given: the keys that give it, with their values.
        more: what to change for more of it, or for less need.
    """

    size: int
    given: str
    more: str


class ClusterSpec(Section, ABC):
    """What all cluster files have in common.

    Attributes:
        threads_per_worker: threads that run jobs in each worker process.
        workers_timeout: how long the start, and later every job, waits while there is no worker;
            then it fails, instead of waiting for ever. Of a scheduler that is joined, which has a
            time of its own for jobs, the start alone.
    """

    threads_per_worker: Count = 1
    workers_timeout: Time = "10 minutes"

    def connect(self, check: Callable[[Client], None] | None = None) -> Client:
        """Start the cluster, or join it.

        Args:
            check: called with the client before anything is done with it; what it raises closes
                the client.

        Raises:
            ClusterError: if it can't be started or reached.
        """
        dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_FAILURES})
        dask.config.set({"distributed.scheduler.no-workers-timeout": self.workers_timeout})
        keep_from_deadlock()
        be_quiet("distributed.nanny")
        client = self.start()
        try:
            if isinstance(client, PatientClient):
                client.workers_timeout = parse_timedelta(self.workers_timeout)
            if check is not None:
                check(client)
            if client.cluster is not None:  # what is joined is shared with others, and stays
                client.register_plugin(QuietWorker())
            self.adapt(client.cluster)
        except BaseException:
            with suppress(Exception):  # the first error counts
                client.close()
            raise
        return client

    @abstractmethod
    def start(self) -> Client:
        """Start the cluster, or join it; a client of it."""

    @property
    def worker_memory(self) -> WorkerMemory | None:
        """Memory of a worker process; None as long as only the running worker can tell."""
        return None

    @property
    def has_gpus(self) -> bool:
        """Whether the file gives its workers GPUs."""
        return False

    def adapt(self, cluster: Any) -> None:
        """Have workers come and go with the work from now on, where the file says so."""


class LimitedSpec(ClusterSpec):
    """A cluster file that may limit the memory of worker processes.

    Attributes:
        memory_limit: memory of one worker ("6GiB"), or "auto" for an equal share of its machine.
    """

    memory_limit: Size = "auto"

    @property
    def worker_memory(self) -> WorkerMemory | None:
        """See `ClusterSpec.worker_memory`; None for "auto", and where there is no limit."""
        size = 0 if self.memory_limit == "auto" else parse_bytes(self.memory_limit)
        if size <= 1:  # Dask takes 1 for the whole machine
            return None
        more = "a larger memory_limit, or fewer threads_per_worker"
        return WorkerMemory(size, f"memory_limit: {self.memory_limit}", more)


@dataclass(frozen=True)
class Outlook:
    """Whether workers can be expected.

    Attributes:
        text: what is known of them, for messages.
        hopeless: whether none can come any more, as far as that is known.
        advice: what to do where none comes; empty: what the client says.
    """

    text: str
    hopeless: bool = False
    advice: str = ""


class PatientClient(Client):
    """A client of a cluster whose workers may come later than it, or come and go.

    Attributes:
        workers_timeout: seconds to wait for the first worker.
        most_threads: threads of all workers that the cluster may have; 0 if that is not known.
        outlook: what is known of workers that are to come.
        advice: what to do where none comes.
    """

    workers_timeout: float = 0
    most_threads: int = 0
    outlook: Callable[[], Outlook] = staticmethod(lambda: Outlook("none has joined yet"))
    advice: str = (
        "Look whether workers are running and can reach the scheduler, or give the cluster file "
        "a longer workers_timeout."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        except BaseException:
            # Left half made, it is closed when it is collected as garbage: that may be in the
            # thread that another client is just starting, which then waits for itself.
            with suppress(Exception):
                self.close()  # type: ignore[no-untyped-call]
            raise


class OwningClient(PatientClient):
    """A client that stops its cluster when it is closed."""

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """See `distributed.Client.close`."""
        cluster = self.cluster
        try:
            return super().close(*args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            if cluster is not None and cluster.status is not Status.closed:
                cluster.close()


def extra_module(module: str, extra: str, otherwise: str) -> Any:
    """A module that only some clusters need; it may not take Ctrl-C for itself (dask-jobqueue)."""
    before = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ClusterError(
            f"a cluster of kind {extra} needs the library {module.split('.')[0]}, which can't be "
            f'imported ({error}). Install it with pip install "deepprofile[{extra}]", or '
            f"{otherwise}"
        ) from None
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def started(what: str, start: Callable[[], Any], advice: str = "") -> Any:
    """What ``start`` returns; whatever it raises becomes a ClusterError with advice."""
    try:
        return start()
    except ClusterError:
        raise
    except Exception as error:  # each kind of cluster has errors of its own
        raise ClusterError(
            f"the cluster can't be started ({what}): {type(error).__name__}: "
            f"{redacted(str(error)).rstrip('.')}. {advice}".rstrip()
        ) from error
