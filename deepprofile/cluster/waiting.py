"""Waiting for workers, where a cluster has none yet, or none at the moment."""

import math
import time
from contextlib import suppress
from uuid import uuid4

from dask.utils import format_time
from distributed import Client, Future, wait
from distributed.scheduler import NoWorkerError

from deepprofile.cluster.base import ClusterError, Outlook, PatientClient
from deepprofile.events import notice

POLL_SECONDS = 2.0
"""Seconds between two looks whether a worker has come."""
LOOK_SECONDS = 30.0
"""Seconds between two looks at what has become of the workers that are to come: others use the
queue, too."""
HOPELESS_SECONDS = 90.0
"""Seconds without any prospect of a worker after which nobody waits longer: what was lost a moment
ago is about to be asked for again, and the queue may take a minute for that."""


def await_worker(client: Client) -> None:
    """Wait until the cluster has a worker; one that adapts to its work is asked for it.

    Args:
        client: of any cluster; nothing is done for others than a `PatientClient`.

    Raises:
        ClusterError: if none has come in the time of the cluster file, or none can come.
    """
    if not isinstance(client, PatientClient) or _threads(client):
        return
    # Work, however little, is what a cluster that adapts starts workers for.
    work = client.submit(int, key=f"first-worker-{uuid4().hex}", pure=False)
    try:
        _wait(client, work)
    finally:
        work.cancel()


def _threads(client: Client) -> int:
    return sum(client.nthreads().values())


def _wait(client: PatientClient, work: Future[int]) -> None:
    start = hoped = time.monotonic()
    looked, outlook = -math.inf, Outlook("")
    while not _has_run(client, work):
        if time.monotonic() - looked > LOOK_SECONDS:
            said, outlook = outlook.text, client.outlook()
            looked = time.monotonic()
            if outlook.text != said:
                notice("waiting", f"waiting for the first worker: {outlook.text}")
        now = time.monotonic()
        hoped = hoped if outlook.hopeless else now
        if now - hoped > HOPELESS_SECONDS or now - start > client.workers_timeout:
            raise _nobody(client, now - start)


def _has_run(client: PatientClient, work: Future[int]) -> bool:
    # Its result, nothing, is not fetched: the worker may be at something else by now.
    with suppress(TimeoutError):
        wait(work, timeout=min(POLL_SECONDS, client.workers_timeout))
    error = work.exception() if work.status == "error" else None
    if isinstance(error, NoWorkerError):
        raise _nobody(client, client.workers_timeout)
    if error is not None:
        raise ClusterError(f"the workers die as they start. {_prospect(client)}")
    return work.status == "finished"


def _nobody(client: PatientClient, seconds: float) -> ClusterError:
    return ClusterError(
        f"the cluster has no worker after {format_time(seconds)}: {_prospect(client)}"
    )


def _prospect(client: PatientClient) -> str:
    """What is known of workers, and what to do."""
    outlook = client.outlook()
    return f"{outlook.text}. {outlook.advice or client.advice}"
