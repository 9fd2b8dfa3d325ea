"""The ledger of a cube: its commit log says what was done, by which stage, and what failed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import icechunk

from deepprofile.store.repository import MAIN, NotACubeError, open_repository

ARCHIVE = "ledger"
"""The branch whose head keeps what the ledger needs of snapshots that have expired."""
FAILED_RUNS = "failures"
"""The branch whose head names the jobs of runs that published nothing, as every job failed."""
AFTER = "after"
"""Key of a failed run: the snapshot that ``main`` showed meanwhile."""
OBSOLETE = "obsolete"
"""Key of a failed run: names of pieces that failed before, and that no run makes any more."""
NO_CUBE = ""
"""What `planned_head` says of a place where there is no cube."""


@dataclass(frozen=True)
class Commit:
    """One entry of the ledger.

    Attributes:
        snapshot_id: the snapshot that the commit made; `open_cube` opens it.
        time: when it was made, UTC.
        message: one line.
        metadata: what the publication noted: ``stage``, ``extent``, ``done`` (fingerprint of
            each piece by its name), ``failed`` (key, error and names of the pieces of each job),
            ``withdrawn`` (names of pieces that are to be written again) and what its stage added.
        expired: whether the snapshot can't be opened any more; of such a commit only that is kept
            which no later one has replaced.
        failed_run: whether it only names the jobs of a run that published nothing; ``main`` never
            showed it, and its snapshot holds no cube.
    """

    snapshot_id: str
    time: datetime
    message: str
    metadata: Mapping[str, Any]
    expired: bool = False
    failed_run: bool = False


def head(url: str | Path) -> str:
    """Identity of the snapshot that readers of a cube see now.

    Raises:
        NotACubeError: if there is no cube.
    """
    return str(open_repository(url).lookup_branch(MAIN))


def planned_head(url: str | Path) -> str:
    """`head`, or NO_CUBE where there is none: what a plan for `publish` rests on."""
    try:
        return head(url)
    except NotACubeError:
        return NO_CUBE


def history(url: str | Path) -> list[Commit]:
    """The commits that readers of a cube see, the newest first; expired ones come last.

    Runs that published nothing, as every job failed, stand next to the commit that ``main`` showed
    meanwhile, on its newer side.

    Raises:
        NotACubeError: if there is no cube.
    """
    return commits_in(open_repository(url))


def commits_in(repository: icechunk.Repository) -> list[Commit]:
    """The commits of an open cube, see `history`."""
    on_main = [
        Commit(entry.id, entry.written_at, entry.message, entry.metadata)
        for entry in repository.ancestry(branch=MAIN)
        if entry.parent_id is not None
    ]
    archived = [replace(commit, expired=True) for commit in listed_on(repository, ARCHIVE)]
    return arranged(on_main, listed_on(repository, FAILED_RUNS), archived)


def arranged(
    on_main: Sequence[Commit], runs: Sequence[Commit], archived: Sequence[Commit]
) -> list[Commit]:
    """Commits of three branches in one order, that of ``main``; no clock counts.

    Args:
        on_main: what ``main`` shows, the newest first, as all three.
        runs: failed runs. One whose commit of ``main`` has expired stands in the archive.
        archived: what is kept of expired commits.
    """
    shown = {commit.snapshot_id for commit in on_main}
    placed = [run for run in runs if run.metadata.get(AFTER) in shown]
    known = shown | {run.snapshot_id for run in placed}
    older = [commit for commit in archived if commit.snapshot_id not in known]
    known |= {commit.snapshot_id for commit in older}
    adrift = [run for run in runs if run.snapshot_id not in known]
    at: dict[str, list[Commit]] = {}
    for run in placed:
        at.setdefault(run.metadata[AFTER], []).append(run)
    newer = [c for commit in on_main for c in (*at.get(commit.snapshot_id, ()), commit)]
    return [*newer, *adrift, *older]


def listed_on(repository: icechunk.Repository, branch: str) -> list[Commit]:
    """The commits that the head of a side branch lists, the newest first; none without it."""
    if branch not in repository.list_branches():
        return []
    newest = repository.lookup_snapshot(repository.lookup_branch(branch))
    return [
        Commit(
            entry["snapshot_id"],
            datetime.fromisoformat(entry["time"]),
            entry["message"],
            entry["metadata"],
            failed_run=entry.get("failed_run", False),
        )
        for entry in newest.metadata.get("commits", ())
    ]


def entry_of(commit: Commit) -> dict[str, Any]:
    """A commit as the head of a side branch lists it."""
    return {
        "snapshot_id": commit.snapshot_id,
        "time": commit.time.isoformat(),
        "message": commit.message,
        "metadata": dict(commit.metadata),
        **({"failed_run": True} if commit.failed_run else {}),
    }


def done_jobs(url: str | Path, stage: str) -> dict[str, str]:
    """What the cube holds of a stage: name of each published piece and its latest fingerprint.

    A piece is done for certain inputs only if its latest fingerprint is theirs; an earlier one
    may have been written over since. Empty where there is no cube.
    """
    return done_in(commits_of(url, stage))


def done_in(commits: Iterable[Commit]) -> dict[str, str]:
    """The same from the commits of a stage, the oldest first."""
    done: dict[str, str] = {}
    for commit in commits:
        for name in commit.metadata.get("withdrawn", ()):
            done.pop(name, None)
        done |= commit.metadata.get("done", {})
    return done


def noted(commits: Iterable[Commit], key: str) -> dict[str, Any]:
    """All that some commits note under ``key``, a mapping in each; a later one counts.

    Args:
        commits: the oldest first, as `commits_of` gives them.
        key: such as ``"made_of"``; for ``"done"`` see `done_in`.
    """
    found: dict[str, Any] = {}
    for commit in commits:
        found |= commit.metadata.get(key, {})
    return found


def settings_of(url: str | Path, stage: str) -> dict[str, Mapping[str, str]]:
    """Name of each published piece, and the ``settings`` that its latest commit notes."""
    found: dict[str, Mapping[str, str]] = {}
    for commit in commits_of(url, stage):
        for name in commit.metadata.get("withdrawn", ()):
            found.pop(name, None)
        settings = commit.metadata.get("settings", {})
        found |= dict.fromkeys(commit.metadata.get("done", {}), settings)
    return found


def commits_of(url: str | Path, stage: str) -> list[Commit]:
    """Commits of a stage, the oldest first; none where there is no cube."""
    try:
        commits = history(url)
    except NotACubeError:
        return []
    return [commit for commit in reversed(commits) if commit.metadata.get("stage") == stage]


def open_failures(commits: list[Commit]) -> dict[str, str]:
    """Jobs that failed, with their errors, of which some piece has not been written since.

    Args:
        commits: the newest first, as `history` gives them.
    """
    failures, missing = _failures(commits)
    return {job: error for job, error in failures.items() if missing[job]}


def failed_pieces(commits: list[Commit]) -> set[str]:
    """Names of the pieces of jobs that failed which have not been written since.

    Args:
        commits: the newest first, as `history` gives them.
    """
    _, missing = _failures(commits)
    return set().union(*missing.values())


def _failures(commits: list[Commit]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Error of each job that failed at some time, and its pieces that are not there since."""
    failures: dict[str, str] = {}
    missing: dict[str, set[str]] = {}
    for commit in reversed(commits):
        for failure in commit.metadata.get("failed", ()):
            failures[failure["job"]] = failure["error"]
            missing[failure["job"]] = set(failure.get("entries", [failure["job"]]))
        for names in missing.values():
            names.difference_update(commit.metadata.get("done", ()))
            names.difference_update(commit.metadata.get(OBSOLETE, ()))
    return failures, missing
