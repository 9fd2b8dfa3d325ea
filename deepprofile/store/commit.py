"""The two steps that change a cube, safe against a reply that is lost on the way."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import icechunk

from deepprofile.store.messages import cause
from deepprofile.store.repository import MAIN, ConflictError, StoreError


def commit(
    repository: icechunk.Repository,
    url: str | Path,
    session: icechunk.Session,
    head: str,
    message: str,
    ledger: Mapping[str, Any],
) -> str:
    """Commit on the session's branch; done as well if only the reply was lost.

    Args:
        repository: repository of the cube.
        url: the cube, for messages.
        session: the session with the changes.
        head: the snapshot of ``main`` that the publication began at.
        message: one line for the commit log.
        ledger: what the commit log keeps; ``publication`` is added, by which a commit is known.

    Returns:
        The new snapshot.

    Raises:
        ConflictError: if the branch is not where the session began.
        icechunk.IcechunkError: if the store failed.
    """
    branch, parent = session.branch, session.snapshot_id
    assert branch is not None
    ledger = {**ledger, "publication": secrets.token_hex(8)}
    try:
        return session.commit(message, ledger)
    except (icechunk.IcechunkError, icechunk.ConflictError) as error:
        found = _tip(repository, branch)
        if found is not None and found.metadata.get("publication") == ledger["publication"]:
            return found.id
        if not isinstance(error, icechunk.ConflictError):
            raise
        raise ConflictError(
            f"{url}: another publication has taken over the branch {branch}: expected {parent}, "
            f"found {found.id if found else 'no branch'}; {MAIN} is at "
            f"{repository.lookup_branch(MAIN)}, this publication began at {head}. It was dropped. "
            "Run the stage again when the other has finished; what it did will not be repeated."
        ) from error


def _tip(repository: icechunk.Repository, branch: str) -> icechunk.SnapshotInfo | None:
    """The snapshot at the head of a branch, None if there is no such branch."""
    if branch not in repository.list_branches():
        return None
    return repository.lookup_snapshot(repository.lookup_branch(branch))


def move_main(repository: icechunk.Repository, url: str | Path, snapshot: str, head: str) -> None:
    """Show the snapshot to readers, if ``main`` is still where it was.

    Raises:
        ConflictError: if ``main`` is somewhere else.
        StoreError: if it can't be found out whether ``main`` has moved.
    """
    try:
        repository.reset_branch(MAIN, snapshot, from_snapshot_id=head)
    except icechunk.IcechunkError as error:
        try:
            found = repository.lookup_branch(MAIN)
            # The reply may have been lost, and others may have published upon it since.
            if found == snapshot or _is_behind(repository, snapshot, found, head):
                return
        except icechunk.IcechunkError as lost:
            raise StoreError(
                f"{url}: the store fell silent while {MAIN} was moved to {snapshot}, so it is not "
                f"known whether readers see it: {cause(str(lost))}. Run the stage again when the "
                "store answers: it finds out, and leaves out what is already there."
            ) from error
        if found == head:
            raise
        raise ConflictError(
            f"{url}: somebody else has published meanwhile: {MAIN} is at {found}, expected {head}. "
            "Theirs stays, this publication was dropped. Run the stage again; it starts from "
            "the new head and leaves out what is already there."
        ) from error


def _is_behind(repository: icechunk.Repository, snapshot: str, found: str, head: str) -> bool:
    """Whether a snapshot lies between an old head of ``main`` and the one found."""
    for entry in repository.ancestry(snapshot_id=found):
        if entry.id in (snapshot, head):
            return entry.id == snapshot
    return False
