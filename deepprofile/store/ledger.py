"""The ledger of a cube: its commit log says what was done, by which stage, and what failed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from deepprofile.store.repository import MAIN, NotACubeError, open_repository


@dataclass(frozen=True)
class Commit:
    """One entry of the ledger.

    Attributes:
        snapshot_id: the snapshot that the commit made; `open_cube` opens it.
        time: when it was made, UTC.
        message: one line.
        metadata: what the publication noted: ``stage``, ``extent``, ``done`` (fingerprint of
            each piece by its name), ``failed`` (key, error and names of the pieces of each job)
            and what its stage added.
    """

    snapshot_id: str
    time: datetime
    message: str
    metadata: Mapping[str, Any]


def head(url: str | Path) -> str:
    """Identity of the snapshot that readers of a cube see now.

    Raises:
        NotACubeError: if there is no cube.
    """
    return str(open_repository(url).lookup_branch(MAIN))


def history(url: str | Path) -> list[Commit]:
    """The commits that readers of a cube see, the newest first.

    Raises:
        NotACubeError: if there is no cube.
    """
    return [
        Commit(entry.id, entry.written_at, entry.message, entry.metadata)
        for entry in open_repository(url).ancestry(branch=MAIN)
        if entry.parent_id is not None
    ]


def done_jobs(url: str | Path, stage: str) -> dict[str, str]:
    """What the cube holds of a stage: name of each published piece and its latest fingerprint.

    A piece is done for certain inputs only if its latest fingerprint is theirs; an earlier one
    may have been written over since. Empty where there is no cube.
    """
    done: dict[str, str] = {}
    for commit in _commits_of(url, stage):
        done |= commit.metadata.get("done", {})
    return done


def settings_of(url: str | Path, stage: str) -> dict[str, Mapping[str, str]]:
    """Name of each published piece, and the ``settings`` that its latest commit notes."""
    found: dict[str, Mapping[str, str]] = {}
    for commit in _commits_of(url, stage):
        settings = commit.metadata.get("settings", {})
        found |= dict.fromkeys(commit.metadata.get("done", {}), settings)
    return found


def _commits_of(url: str | Path, stage: str) -> list[Commit]:
    """Commits of a stage, the oldest first; none where there is no cube."""
    try:
        commits = history(url)
    except NotACubeError:
        return []
    return [commit for commit in reversed(commits) if commit.metadata.get("stage") == stage]


def open_failures(commits: list[Commit]) -> dict[str, str]:
    """Jobs that failed, with their errors, of which some piece has not been written since."""
    failures: dict[str, str] = {}
    missing: dict[str, set[str]] = {}
    for commit in reversed(commits):
        for failure in commit.metadata.get("failed", ()):
            failures[failure["job"]] = failure["error"]
            missing[failure["job"]] = set(failure.get("entries", [failure["job"]]))
        for names in missing.values():
            names.difference_update(commit.metadata.get("done", ()))
    return {job: error for job, error in failures.items() if missing[job]}
