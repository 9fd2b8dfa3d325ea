"""Runs that published nothing, as every job failed: the ledger names their jobs all the same.

They stand on a branch of their own, which holds no data. ``main`` does not move, so readers see
nothing of them and no stage thinks that its inputs have changed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import icechunk
import zarr

from deepprofile.store.faults import takes_nothing
from deepprofile.store.jobs import JobFailure, WritingJob
from deepprofile.store.ledger import FAILED_RUNS, commits_in, open_failures, side_session

_KEPT = ("stage", "recipe", "versions")
"""What is kept of the metadata that the publication would have had."""


def record_of(failure: JobFailure) -> dict[str, Any]:
    """What the ledger keeps of a failed job: it is forgotten once all its pieces are there."""
    job: WritingJob = failure.job
    return {"job": job.key, "error": failure.error, "entries": list(job.entries)}


def note_failed_run(
    repository: icechunk.Repository,
    message: str,
    metadata: Mapping[str, Any],
    failed: Sequence[JobFailure],
) -> bool:
    """Let the ledger name the jobs of a run that published nothing.

    Nothing is tried where the disk is full or the store silent, and nothing is added to a ledger
    that names the same jobs with the same errors already.

    Args:
        repository: of the cube.
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
            _commit(repository, message, metadata, failed)
    except (icechunk.IcechunkError, icechunk.ConflictError, OSError):
        return False
    return True


def _commit(
    repository: icechunk.Repository,
    message: str,
    metadata: Mapping[str, Any],
    failed: Sequence[JobFailure],
) -> None:
    session = side_session(repository, FAILED_RUNS)
    group = zarr.open_group(session.store, mode="a")
    group.attrs["runs"] = int(str(group.attrs.get("runs", 0))) + 1
    kept = {key: metadata[key] for key in _KEPT if key in metadata}
    session.commit(message, {**kept, "failed": [record_of(failure) for failure in failed]})
