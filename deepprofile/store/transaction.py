"""Write, audit, publish: how a cube changes.

The driver makes a branch of its own at the head of ``main``, extends the arrays there and commits;
jobs write whole shards through forks of a new session and return them; the driver merges them,
commits, checks what it finds, and moves ``main``. Readers of ``main`` see all of it or nothing.
A reply of the store that is lost on the way is no failure: what was asked for is looked up.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import icechunk
import xarray as xr
from distributed import Client

from deepprofile.events import emit
from deepprofile.store.commit import commit, move_main
from deepprofile.store.cube import open_session
from deepprofile.store.failed_runs import describe_failures, note_failed_run, record_of
from deepprofile.store.faults import explained, takes_nothing
from deepprofile.store.jobs import (
    Job,
    JobFailure,
    Progress,
    WritingJob,
    run_jobs,
    without_workers,
)
from deepprofile.store.layout import BLOCK_DAYS, day_at
from deepprofile.store.ledger import NO_CUBE
from deepprofile.store.repository import (
    FIRST,
    MAIN,
    ConflictError,
    CubeError,
    exclusive,
    is_unpublished,
    open_group,
    open_or_create,
)
from deepprofile.store.staging import staging
from deepprofile.store.template import Template, array_of, extend
from deepprofile.store.writer import Shard, Writer

PROVENANCE = ("recipe", "versions", "model", "precision", "device", "max_gap_days")
"""Keys of a publication's metadata that also become root attributes of the cube."""

JobFunction = Callable[[Writer, Any], Any]
Audit = Callable[[xr.Dataset], Iterable[str]]


class PublicationError(CubeError):
    """A publication that did not take place; readers see what they saw before."""


class AllFailedError(PublicationError):
    """Every job of a publication failed, and another publication may still succeed.

    Attributes:
        failed: the jobs.
    """

    def __init__(self, message: str, failed: list[JobFailure]) -> None:
        super().__init__(message)
        self.failed = failed


@dataclass(frozen=True)
class Outcome:
    """What a publication did.

    Attributes:
        snapshot_id: the snapshot that ``main`` now shows.
        done: names of the pieces that were written.
        failed: the jobs that failed for good.
        results: pairs of job and what its function returned.
    """

    snapshot_id: str
    done: list[str]
    failed: list[JobFailure]
    results: list[tuple[Any, Any]]


@dataclass(frozen=True)
class _Written:
    """What a job sends back: its result, its fork (pickled), its shards."""

    result: Any
    fork: bytes
    shards: list[Shard]


def publish(
    url: str | Path,
    template: Template,
    n_days: int | None,
    function: JobFunction,
    jobs: Sequence[WritingJob],
    *,
    client: Client,
    message: str,
    metadata: Mapping[str, Any],
    summarise: Callable[[list[tuple[Any, Any]]], Mapping[str, Any]] | None = None,
    audit: Audit | None = None,
    on_progress: Progress | None = None,
    window: int | None = None,
    retries: int = 2,
    planned_at: str | None = None,
) -> Outcome:
    """Run jobs that write a cube, check the result, and show it to readers at once.

    Args:
        url: local path or ``s3://bucket/prefix``; the cube is created where there is none.
        template: structure of the cube.
        n_days: length the time axis is to have, counted from the first day of the template's
            first block; None or a smaller number leave it as it is.
        function: ``function(writer, job)`` writes whole shards and returns a small result; it is
            importable on the workers and deterministic.
        jobs: what to run. No two jobs may write the same shard.
        client: client of the cluster.
        message: one line for the commit log.
        metadata: for the commit log, JSON values; needs ``stage``. What of it stands in
            PROVENANCE also becomes an attribute of the cube.
        summarise: called with the pairs of job and result; what it returns joins the metadata
            (set-aside granules, under ``set_aside``, for instance).
        audit: called with the dataset as readers would see it; returns what is wrong with it.
        on_progress: called with the numbers of ended and of all jobs.
        window: jobs in flight, see `run_jobs`.
        retries: how often a job that raised is tried again.
        planned_at: the snapshot that ``main`` showed when the jobs were planned, or NO_CUBE (see
            `planned_head`); if somebody has published since, nothing is run, as the jobs may be
            done or out of date. None: the jobs hold whatever was published.

    Returns:
        The outcome. Jobs that failed are in it and in the commit log; the rest is published.

    Raises:
        AllFailedError: if every job failed; ``main`` has not moved.
        PublicationError: if the audit found something wrong, or every job failed as the store
            takes nothing or no workers are left; ``main`` has not moved.
        ConflictError: if somebody else is publishing or has published meanwhile; ``main`` shows
            theirs.
        LayoutMismatchError: if the cube exists with another template.
        StoreError: if the disk is full, the clock is wrong or the store does not answer.
    """
    if "stage" not in metadata:
        raise ValueError("the metadata of a publication needs the key 'stage'")
    with explained(url), exclusive(url):
        repository = open_or_create(url, template)
        with staging(repository, url) as (branch, head):
            _check_plan(repository, url, planned_at, head)
            extent = _extend(repository, url, branch, n_days, message)
            session = repository.writable_session(branch)
            args = (function, pickle.dumps(session.fork()))
            written, failed = run_jobs(
                client,
                _run_job,
                jobs,
                args=args,
                window=window,
                retries=retries,
                on_done=on_progress,
            )
            if failed and not written:
                noted = note_failed_run(repository, head, message, metadata, failed)
                raise _all_failed(url, failed, noted)
            _check_owners(url, written)
            results = [(job, part.result) for job, part in written]
            ledger = {
                **metadata,
                **(summarise(results) if summarise else {}),
                "extent": extent,
                "done": dict(entry for job, _ in written for entry in job.entries.items()),
                "failed": [record_of(failure) for failure in failed],
            }
            parts = [part for _, part in written]
            session.merge(*(pickle.loads(part.fork) for part in parts))
            open_group(session.store, url).update_attributes(_provenance(ledger))
            snapshot = commit(repository, url, session, head, message, ledger)
            _audit(repository, url, snapshot, parts, audit)
            move_main(repository, url, snapshot, head)
    amounts = {"pieces": len(ledger["done"]), "failed": len(failed)}
    emit("published", message, cube=str(url), snapshot=snapshot, **amounts)
    return Outcome(snapshot, list(ledger["done"]), failed, results)


def _run_job(job: Job, function: JobFunction, fork: bytes) -> _Written:
    """Run one job in a worker, with a fork of its own: a second attempt starts from nothing."""
    session = pickle.loads(fork)
    writer = Writer(session)
    result = function(writer, job)
    return _Written(result, pickle.dumps(session), writer.written)


def _check_plan(
    repository: icechunk.Repository, url: str | Path, planned_at: str | None, head: str
) -> None:
    """Raise ConflictError if jobs were planned for another state of the cube than the present."""
    if planned_at is None or planned_at == head:
        return
    if planned_at in (NO_CUBE, FIRST) and is_unpublished(repository, head):
        return
    before = f"{MAIN} was at {planned_at}" if planned_at else "there was no cube"
    raise ConflictError(
        f"{url}: somebody else has published since this run looked what is to do: {before}, now "
        f"{MAIN} is at {head}. Run the stage again: it leaves out what is already there."
    )


def _extend(
    repository: icechunk.Repository,
    url: str | Path,
    branch: str,
    n_days: int | None,
    message: str,
) -> dict[str, Any]:
    """Extend the time axis where it is too short, in a commit of its own.

    Returns:
        The extent of the cube for the commit log.
    """
    session = repository.writable_session(branch)
    group = open_group(session.store, url)
    if n_days is not None:
        extend(group, n_days)
    extent: dict[str, Any] = {
        key: group.attrs[key] for key in ("tile_rows", "tile_columns") if key in group.attrs
    }
    if "time" in group:
        first = int(str(group.attrs["first_block"])) * BLOCK_DAYS
        days = array_of(group, "time").shape[0]
        extent |= {"first_day": day_at(first).isoformat(), "n_days": days}
    if session.has_uncommitted_changes:
        ledger = {"stage": "structure", "extent": extent}
        commit(repository, url, session, session.snapshot_id, f"{message}: structure", ledger)
    return extent


def _all_failed(url: str | Path, failed: list[JobFailure], noted: bool) -> PublicationError:
    message = describe_failures(url, failed, noted)
    if any(takes_nothing(failure.error) or without_workers(failure) for failure in failed):
        return PublicationError(message)
    return AllFailedError(message, failed)


def _check_owners(url: str | Path, written: list[tuple[Any, _Written]]) -> None:
    """Raise PublicationError if two jobs have written the same shard."""
    owner: dict[Shard, str] = {}
    for job, part in written:
        for shard in set(part.shards):
            if shard in owner:
                raise PublicationError(
                    f"{url}: jobs {owner[shard]} and {job.key} both wrote shard {shard}, nothing "
                    "was published. A shard belongs to one job."
                )
            owner[shard] = job.key


def _provenance(ledger: Mapping[str, Any]) -> dict[str, str]:
    """Root attributes that say where the last values come from; text only, as CF has it."""
    attributes = {"date_modified": datetime.now(UTC).isoformat(timespec="microseconds")}
    for key in PROVENANCE:
        value = ledger.get(key)
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {text}" for name, text in value.items())
        if value is not None:
            attributes[key] = str(value)
    return attributes


def _audit(
    repository: icechunk.Repository,
    url: str | Path,
    snapshot: str,
    parts: list[_Written],
    audit: Audit | None,
) -> None:
    """Check that a snapshot holds every shard that the jobs say they have written."""
    session = repository.readonly_session(snapshot_id=snapshot)
    missing = [
        shard
        for part in parts
        for shard in part.shards
        if session.chunk_type(f"/{shard[0]}", shard[1]) == icechunk.ChunkType.UNINITIALIZED
    ]
    problems = [f"shard {position} of {array} is missing" for array, position in missing]
    dataset = open_session(session, url, chunks=None)
    problems += audit(dataset) if audit else ()
    if problems:
        shown = "\n  ".join(problems[:10])
        raise PublicationError(
            f"{url}: the audit found {len(problems)} problems, nothing was published. "
            f"The snapshot {snapshot} can be opened to look at it.\n  {shown}"
        )
