"""Jobs on Dask: many small tasks, a few of them in flight at a time.

A job is small data (indices and URLs) with a ``key`` that names it. It may run twice when a
worker is lost: it must be deterministic, and writing its result again must change nothing.
"""

import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

from dask.utils import format_bytes, funcname
from distributed import Client, Future, KilledWorker, as_completed
from distributed.protocol.pickle import dumps
from icechunk import IcechunkError

from deepprofile.cluster.waiting import await_worker
from deepprofile.events import JobCount
from deepprofile.store.messages import cause

MAX_JOB_BYTES = 1_000_000
"""Limit of what travels through the scheduler with one job."""
WINDOW = 3
"""Jobs in flight for each worker thread."""
ROOM_SECONDS = 1.0
"""Seconds after which workers are counted again."""
LOSABLE = ("pending", "lost", "finished")
"""States of a future that had ended and whose result died with a worker: it is computed again."""
MAX_TRIES = 3
"""How often that may be, and a result may be found unreadable."""
NO_WORKERS = (
    "the cluster has no workers yet. Wait until some have joined its scheduler, or start some with "
    "`dask worker ADDRESS`, where ADDRESS is the scheduler's."
)
"""Said where nothing can be known of workers, as none has joined."""

Progress = Callable[[int, int], None]
"""Called with the number of jobs that have ended and the number of all."""


class Job(Protocol):
    """What can be run as a job."""

    @property
    def key(self) -> str:
        """Name of the job, unique in its stage and the same in every run."""


class WritingJob(Job, Protocol):
    """A job that writes pieces of a cube; each of them stands in the cube's ledger."""

    @property
    def entries(self) -> Mapping[str, str]:
        """Name of each piece that it writes and the fingerprint of that piece's own inputs and
        settings; another fingerprint means: write it again. However pieces are shared out among
        jobs, their names and fingerprints stay the same.
        """


class _OfOnePiece(Job, Protocol):
    @property
    def fingerprint(self) -> str: ...


class SinglePiece:
    """Mixin for a job that writes one piece, which has the job's key as its name."""

    @property
    def entries(self: _OfOnePiece) -> Mapping[str, str]:
        """The job's key and fingerprint."""
        return {self.key: self.fingerprint}


@dataclass(frozen=True)
class JobFailure:
    """A job that failed for good.

    Attributes:
        job: the job.
        error: type and message of its last error.
        traceback: where the error rose, in the worker.
        killed: whether it ended as its workers died.
    """

    job: Any
    error: str
    traceback: str
    killed: bool = False


@dataclass(frozen=True)
class _Result:
    """What a job returned."""

    value: Any


def without_workers(failure: JobFailure) -> bool:
    """Whether a job failed as no worker was left to run it."""
    return failure.error.startswith("NoWorkerError")


class JobError(ValueError):
    """Jobs that can't be run as they are."""


def run_jobs(
    client: Client,
    function: Callable[..., Any],
    jobs: Sequence[Job],
    *,
    args: tuple[Any, ...] = (),
    window: int | None = None,
    retries: int = 2,
    workers: Sequence[str] | None = None,
    on_done: Progress | None = None,
) -> tuple[list[tuple[Any, Any]], list[JobFailure]]:
    """Run ``function(job, *args)`` for every job on a cluster.

    Args:
        client: client of the cluster.
        function: importable on the workers.
        jobs: the jobs; their order is kept as far as they run at all.
        args: further arguments, the same for all jobs; small.
        window: jobs in flight; by default three for each thread that the workers have, and could
            have where they come and go with the work: of jobs that wait here nobody else knows.
        retries: how often a job that raised is tried again. A job whose worker was killed is
            tried again as often as the scheduler's ``allowed-failures`` says.
        workers: addresses of the workers that may run them; None: all.
        on_done: called each time a job has ended.

    Returns:
        Pairs of job and result, and the failures, both in the order in which they ended.
        Jobs whose workers were killed run once more at the end, one at a time.

    Raises:
        JobError: if two jobs have the same key, or one with its arguments exceeds 1 MB.
    """
    _check_jobs(function, jobs, args)
    room = _Room(client) if window is None else partial(int, window)
    done: list[tuple[Any, Any]] = []
    failed: list[JobFailure] = []
    suspects: list[Job] = []
    count = JobCount(len(jobs))

    def submit(some: Sequence[Job]) -> list[Future[Any]]:
        return client.map(
            _call,
            some,
            function=function,
            args=args,
            key=funcname(function),
            pure=False,
            retries=retries,
            workers=workers,
        )

    def settle(job: Job, end: JobFailure | _Result) -> None:
        if isinstance(end, JobFailure):
            failed.append(end)
            count.failed(job.key, end.error, end.traceback)
        else:
            done.append((job, end.value))
            count.done()
        if on_done is not None:
            on_done(len(done) + len(failed), len(jobs))

    with closing(count), closing(_ended(client, submit, jobs, room)) as ended:
        for job, end in ended:
            if isinstance(end, JobFailure) and end.killed:
                suspects.append(job)
            else:
                settle(job, end)
    # A worker that dies takes the jobs beside the guilty one along. Alone, only that one fails.
    with closing(count), closing(_ended(client, submit, suspects, partial(int, 1))) as ended:
        for job, end in ended:
            settle(job, end)
    return done, failed


class _Room:
    """How many jobs a cluster may have in flight; asked again now and then, as workers come."""

    def __init__(self, client: Client) -> None:
        self._client, self._threads, self._asked = client, 0, -math.inf

    def __call__(self) -> int:
        if time.monotonic() - self._asked > ROOM_SECONDS:
            found = sum(self._client.nthreads().values())
            self._threads = max(1, found, getattr(self._client, "most_threads", 0))
            self._asked = time.monotonic()
        return WINDOW * self._threads


def _call(job: Job, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return function(job, *args)


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """What the scheduler says of each worker, by its address.

    A cluster whose workers come and go with the work is asked for one first, if it has none.

    ``Client.scheduler_info`` sometimes says that there are none: every two seconds the client asks
    for the totals alone, and the two answers have one place.
    """
    await_worker(client)
    assert client.scheduler is not None, "a client has a scheduler from its start on"
    return dict(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def _ended(
    client: Client,
    submit: Callable[[Sequence[Job]], list[Future[Any]]],
    jobs: Sequence[Job],
    room: Callable[[], int],
) -> Generator[tuple[Any, JobFailure | _Result]]:
    """Jobs and how they ended, never more than ``room`` in flight.

    Client and scheduler take milliseconds for whatever is sent at once, be it one job or many: new
    ones follow when a third of them has ended; by then there may be room for more.
    """
    waiting = iter(jobs)
    running: dict[Future[Any], Job] = {}
    tries: Counter[Future[Any]] = Counter()
    queue = as_completed()
    try:
        while True:
            window = room()
            free = window - len(running)
            if 3 * free >= window and (some := list(islice(waiting, free))):
                started = submit(some)
                running |= zip(started, some, strict=True)
                queue.update(started)
            if not running:
                return
            batch = queue.next_batch()
            results = _results(client, batch)
            for future in batch:
                if future in results:
                    yield running.pop(future), _Result(results[future])
                elif future.status in LOSABLE and tries[future] < MAX_TRIES:
                    tries[future] += 1
                    queue.add(future)
                else:
                    yield running[future], _failure(running.pop(future), future)
    finally:
        client.cancel(list(running))


def _results(client: Client, futures: Sequence[Future[Any]]) -> dict[Future[Any], Any]:
    """Results of those that have ended well.

    A result may have died with its worker meanwhile; then it is computed again, and its job may
    fail this time, which must not hide the results of the others.
    """
    ready = [future for future in futures if future.status == "finished"]
    with suppress(Exception):
        return dict(zip(ready, client.gather(ready), strict=True))
    found = {}
    for future in ready:
        with suppress(Exception):
            found[future] = future.result()
    return found


def _check_jobs(function: Callable[..., Any], jobs: Sequence[Job], args: tuple[Any, ...]) -> None:
    twice = [key for key, count in Counter(job.key for job in jobs).items() if count > 1]
    if twice:
        raise JobError(f"{len(twice)} job keys are not unique, such as {twice[0]!r}")
    shared = len(dumps((function, args)))
    for job in jobs:
        size = shared + len(dumps(job))
        if size > MAX_JOB_BYTES:
            raise JobError(
                f"job {job.key} takes {format_bytes(size)} through the scheduler, more than "
                f"{format_bytes(MAX_JOB_BYTES)} ({format_bytes(shared)} of it the function and "
                "its arguments). Pass indices and URLs, and open the data inside the job."
            )


def _failure(job: Job, future: Future[Any]) -> JobFailure:
    """Why a job ended without a result."""
    if future.status != "error":
        found = "its result can't be read" if future.status == "finished" else future.status
        return JobFailure(job, f"the task was ended: {found}", "")
    error = future.exception()
    lines = traceback.format_tb(future.traceback())
    text = f"{type(error).__name__}: {_text_of(error)}"
    return JobFailure(job, text, "".join(lines), isinstance(error, KilledWorker))


def _text_of(error: BaseException | None) -> str:
    """The message of an error, the same whenever the same happens."""
    if isinstance(error, IcechunkError):  # comes with the store's trace of calls
        return cause(str(error))
    if isinstance(error, KilledWorker):  # names a random key and the worker's address
        return (
            f"{error.allowed_failures + 1} workers died while they ran it. They may have had too "
            "little memory; the log of the last one may say more."
        )
    return str(error)
