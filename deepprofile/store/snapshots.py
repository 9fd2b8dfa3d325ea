"""Snapshots of a cube by identity or by date: what readers saw at some moment."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import icechunk

from deepprofile.store.ledger import Commit, commits_in
from deepprofile.store.repository import CubeError

Moment = str | date | datetime
"""A snapshot's identity, or a moment: a day means its end, UTC; times without a zone are UTC."""

NEVER_SHOWN = ("create", "structure")
"""Stages of commits that readers of ``main`` never saw as a publication of their own."""
_IDENTITY = re.compile(r"[0-9A-HJKMNP-TV-Z]{20}")


def was_shown(commit: Commit) -> bool:
    """Whether readers of ``main`` saw a commit as a publication of its own."""
    return commit.metadata.get("stage") not in NEVER_SHOWN and not commit.failed_run


def publications(commits: list[Commit]) -> list[Commit]:
    """The commits that were published and still open, in the order given."""
    return [commit for commit in commits if not commit.expired and was_shown(commit)]


def shown_at(commits: list[Commit], until: datetime) -> Commit | None:
    """What readers saw last before ``until``; None before the first publication that opens.

    Args:
        commits: the ledger, the newest first.
        until: the moment, with its zone; a commit of that very moment is too late.
    """
    return next((commit for commit in publications(commits) if commit.time < until), None)


def moment_of(wanted: Moment) -> datetime:
    """The first moment after ``wanted``, UTC.

    Raises:
        CubeError: if a text is no date.
    """
    if isinstance(wanted, str):
        wanted = _parsed(wanted)
    if isinstance(wanted, datetime):
        aware = wanted if wanted.tzinfo else wanted.replace(tzinfo=UTC)
        return aware.astimezone(UTC) + timedelta(microseconds=1)
    return datetime(wanted.year, wanted.month, wanted.day, tzinfo=UTC) + timedelta(days=1)


def find_snapshot(repository: icechunk.Repository, url: str | Path, wanted: Moment) -> str:
    """Identity of a snapshot from its identity or a moment.

    Raises:
        CubeError: if it is unknown, has expired, or nothing was published by then; the message
            says what there is.
    """
    commits = commits_in(repository)
    if isinstance(wanted, str) and _IDENTITY.fullmatch(wanted):
        return _known(repository, url, wanted, commits)
    until = moment_of(wanted)
    found = shown_at(commits, until)
    if found is not None:
        return found.snapshot_id
    lost = [commit for commit in commits if commit.expired and was_shown(commit)]
    if lost and lost[-1].time < until:
        raise CubeError(
            f"{url}: what readers saw at {wanted} has expired (`deepprofile gc`). {_range(commits)}"
        )
    raise CubeError(f"{url}: nothing was published yet at {wanted}. {_range(commits)}")


def _parsed(text: str) -> date | datetime:
    for kind in (date, datetime):
        try:
            return kind.fromisoformat(text)
        except ValueError:
            continue
    raise CubeError(
        f"no snapshot {text}: that is neither the identity of a snapshot nor a moment. Expected "
        "20 capital letters and digits, a date such as 2016-08-15, or a time such as "
        "2016-08-15T12:00; `deepprofile inspect` lists the snapshots."
    )


def _known(
    repository: icechunk.Repository, url: str | Path, identity: str, commits: list[Commit]
) -> str:
    if any(commit.snapshot_id == identity and commit.expired for commit in commits):
        raise CubeError(
            f"{url}: snapshot {identity} has expired (`deepprofile gc`). {_range(commits)}"
        )
    try:
        repository.lookup_snapshot(identity)
    except icechunk.IcechunkError as error:
        raise CubeError(
            f"{url}: has no snapshot {identity}, or it has expired. {_range(commits)}"
        ) from error
    return identity


def _count(there: list[Commit]) -> str:
    return "There is 1 snapshot" if len(there) == 1 else f"There are {len(there)} snapshots"


def _range(commits: list[Commit]) -> str:
    """What can be opened, for messages."""
    there = publications(commits)
    if not there:
        return "Nothing has been published; run the stage that writes this cube."
    first, last = there[-1], there[0]
    return (
        f"{_count(there)}, from {first.snapshot_id} of {first.time:%Y-%m-%d %H:%M}"
        f" to {last.snapshot_id} of {last.time:%Y-%m-%d %H:%M} UTC; `deepprofile inspect` lists "
        "them."
    )
