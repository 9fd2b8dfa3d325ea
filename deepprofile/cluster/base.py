"""What all cluster files have in common."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, Self

import dask
from dask.utils import parse_bytes
from distributed import Client
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from deepprofile.cluster.process import QuietWorker, be_quiet, keep_from_deadlock
from deepprofile.places import redacted

ALLOWED_FAILURES = 1
"""Workers that a job may lose before it counts as failed: it would go on to kill the next."""
NO_WORKERS_TIMEOUT = "10 minutes"
"""How long jobs wait while no worker is left; then they fail, instead of waiting for ever."""
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


Count = Annotated[int, Field(ge=1)]
Size = Annotated[str, AfterValidator(_a_size)]


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


class ClusterSpec(Section, ABC):
    """What all cluster files have in common.

    Attributes:
        threads_per_worker: threads that run jobs in each worker process.
    """

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


class OwningClient(Client):
    """A client that stops its cluster when it is closed."""

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """See `distributed.Client.close`."""
        cluster = self.cluster
        result = super().close(*args, **kwargs)  # type: ignore[no-untyped-call]
        if cluster is not None:
            cluster.close()
        return result


def extra_module(module: str, extra: str, otherwise: str) -> Any:
    """A module that only some clusters need."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ClusterError(
            f"a cluster of kind {extra} needs the library {module.split('.')[0]}, which can't be "
            f'imported ({error}). Install it with pip install "deepprofile[{extra}]", or '
            f"{otherwise}"
        ) from None


def started(what: str, start: Callable[[], Any]) -> Any:
    """What ``start`` returns; whatever it raises becomes a ClusterError."""
    try:
        return start()
    except ClusterError:
        raise
    except Exception as error:  # each kind of cluster has errors of its own
        raise ClusterError(
            f"the cluster can't be started ({what}): {type(error).__name__}: {redacted(str(error))}"
        ) from error
