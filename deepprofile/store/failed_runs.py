"""Runs that published nothing, as every job failed: the ledger names their jobs all the same.

They stand on a branch of their own, which holds no data. ``main`` does not move, so readers see
nothing of them and no stage thinks that its inputs have changed. Its head lists what is still
open; each list replaces the one before, so the branch stays one commit long.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import icechunk
import zarr

from deepprofile.store.faults import explain, takes_nothing
from deepprofile.store.jobs import JobFailure, WritingJob
from deepprofile.store.ledger import (
    AFTER,
    FAILED_RUNS,
    OBSOLETE,
    Commit,
    commits_in,
    entry_of,
    failed_pieces,
    listed_on,
    open_failures,
)
from deepprofile.store.repository import (
    MAIN,
    ConflictError,
    CubeError,
    NotACubeError,
    exclusive,
    open_repository,
)
from deepprofile.store.staging import STAGING

_KEPT = ("stage", "recipe", "versions")
"""What is kept of the metadata that the publication would have had."""
_REFUSALS = (icechunk.IcechunkError, icechunk.ConflictError, CubeError, OSError)


def record_of(failure: JobFailure) -> dict[str, Any]:
    """What the ledger keeps of a failed job: it is forgotten once all its pieces are there."""
    job: WritingJob = failure.job
    return {"job": job.key, "error": failure.error, "entries": list(job.entries)}


def note_failed_run(
    repository: icechunk.Repository,
    head: str,
    message: str,
    metadata: Mapping[str, Any],
    failed: Sequence[JobFailure],
) -> bool:
    """Let the ledger name the jobs of a run that published nothing.

    Nothing is tried where the disk is full or the store silent, and nothing is added to a ledger
    that names the same jobs with the same errors already.

    Args:
        repository: of the cube.
        head: the snapshot of ``main`` that the publication began at.
        message: one line for the commit log.
        metadata: of the publication that did not take place; ``stage`` is needed.
        failed: its jobs.

    Returns:
        Whether the ledger names them.
    """
    if any(takes_nothing(failure.error) for failure in failed):
        return False
    try:
        stage = metadata["stage"]
        own = [c for c in commits_in(repository) if c.metadata.get("stage") == stage]
        known = open_failures(own)
        if any(known.get(failure.job.key) != failure.error for failure in failed):
            kept = {key: metadata[key] for key in _KEPT if key in metadata}
            named = {"failed": [record_of(failure) for failure in failed]}
            _add(repository, head, message, {**kept, **named})
    except _REFUSALS:
        return False
    return True


def describe_failures(url: str | Path, failed: Sequence[JobFailure], noted: bool) -> str:
    """Why a run published nothing, and what to do; ``noted`` as `note_failed_run` returned it."""
    reason = failed[0].error
    if reason.startswith(icechunk.IcechunkError.__name__):
        reason = explain(url, reason)
    advice = (
        "Run the stage again to repeat them, with --retry-failed them alone; `deepprofile inspect` "
        "lists them."
    )
    return (
        f"{url}: all {len(failed)} jobs failed, nothing was published. "
        f"The first, {failed[0].job.key}: {reason}\n{failed[0].traceback}"
        + (advice if noted else "")
    )


def dismiss(url: str | Path, stage: str, planned: Iterable[str]) -> None:
    """Let the ledger forget failures of pieces that a run of their stage does not make any more.

    Pieces that were withdrawn are not forgotten. Where somebody is publishing, or the store takes
    nothing, nothing is done: the next run finds the same.

    Args:
        url: the cube; there may be none.
        stage: the stage that is about to run.
        planned: names of all pieces that the run makes.
    """
    try:
        repository = open_repository(url)
    except NotACubeError:
        return
    own = [c for c in commits_in(repository) if c.metadata.get("stage") == stage]
    gone = failed_pieces(own) - set(planned) - _withdrawn(own)
    if not gone:
        return
    message = f"{stage}: {len(gone)} pieces that failed are no longer to be made"
    with suppress(*_REFUSALS), exclusive(url):
        head = str(repository.lookup_branch(MAIN))
        _add(repository, head, message, {"stage": stage, OBSOLETE: sorted(gone)})


def tidy(repository: icechunk.Repository) -> None:
    """Drop from the branch what is not open any more, or has gone to the archive."""
    runs, ledger = listed_on(repository, FAILED_RUNS), commits_in(repository)
    here = {commit.snapshot_id for commit in ledger if not commit.expired}
    kept = _open_runs([run for run in runs if run.snapshot_id in here], ledger)
    if kept != runs:
        with suppress(ConflictError):  # somebody else has just noted a run; the next one tidies
            _replace(repository, kept)


def _withdrawn(commits: Sequence[Commit]) -> set[str]:
    """Pieces that are to be written again; ``commits`` the newest first."""
    found: set[str] = set()
    for commit in reversed(commits):
        found |= set(commit.metadata.get("withdrawn", ()))
        found -= set(commit.metadata.get("done", ()))
    return found


def _add(
    repository: icechunk.Repository, head: str, message: str, metadata: Mapping[str, Any]
) -> None:
    """Note a run that took place while ``main`` showed a snapshot."""
    name = f"run-{secrets.token_hex(8)}"
    noted = {**metadata, AFTER: head}
    run = Commit(name, datetime.now(UTC), message, noted, failed_run=True)
    runs = [run, *listed_on(repository, FAILED_RUNS)]
    ledger = [run, *commits_in(repository)]  # the newest of all, as the caller has the cube
    _replace(repository, _open_runs(runs, ledger))


def _open_runs(runs: Sequence[Commit], ledger: list[Commit]) -> list[Commit]:
    """Runs with what of them still counts: open jobs, and failures elsewhere that they dismiss."""
    unresolved = open_failures(ledger)
    dismissible = failed_pieces([c for c in ledger if c.expired or not c.failed_run])
    kept, seen = [], set()
    for run in runs:
        failed = [
            failure
            for failure in run.metadata.get("failed", ())
            if failure["job"] in unresolved and failure["job"] not in seen
        ]
        seen |= {failure["job"] for failure in failed}
        obsolete = [name for name in run.metadata.get(OBSOLETE, ()) if name in dismissible]
        noted = {"failed": failed, OBSOLETE: obsolete}
        others = {key: value for key, value in run.metadata.items() if key not in noted}
        left = {key: value for key, value in noted.items() if value}
        if left:
            kept.append(replace(run, metadata={**others, **left}))
    return kept


def _replace(repository: icechunk.Repository, runs: Sequence[Commit]) -> None:
    """Let the branch list these runs and no others.

    Raises:
        ConflictError: if somebody else has changed it meanwhile.
    """
    there = FAILED_RUNS in repository.list_branches()
    before = repository.lookup_branch(FAILED_RUNS) if there else None
    *_, root = repository.ancestry(branch=MAIN)
    # A name that later publications remove, should this process die.
    branch = f"{STAGING}-{repository.lookup_branch(MAIN)}-{secrets.token_hex(4)}"
    repository.create_branch(branch, root.id)
    snapshot = None
    try:
        session = repository.writable_session(branch)
        zarr.open_group(session.store, mode="a").attrs["runs"] = len(runs)
        entries = [entry_of(run) for run in runs]
        snapshot = session.commit("jobs of runs that published nothing", {"commits": entries})
        if before is None:
            repository.create_branch(FAILED_RUNS, snapshot)
        else:
            repository.reset_branch(FAILED_RUNS, snapshot, from_snapshot_id=before)
    except icechunk.IcechunkError as error:
        now = repository.list_branches()
        found = repository.lookup_branch(FAILED_RUNS) if FAILED_RUNS in now else None
        if found is not None and found == snapshot:  # only the reply was lost
            return
        if found == before:
            raise
        raise ConflictError(f"the branch {FAILED_RUNS} was changed by somebody else") from error
    finally:
        with suppress(icechunk.IcechunkError):
            repository.delete_branch(branch)
