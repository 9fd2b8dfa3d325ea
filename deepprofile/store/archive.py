"""What the ledger needs of commits that expire: folded, and kept on a branch of its own.

The commit log is the ledger, and a snapshot that expires takes its commit along. So what no later
commit has replaced is copied first, into the metadata of the head of the branch ``ledger``. That
branch holds no data and ``main`` does not move: what was made from the cube is not out of date.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import icechunk
import zarr

from deepprofile.store.ledger import ARCHIVE, Commit, commits_in, entry_of, open_failures
from deepprofile.store.repository import MAIN
from deepprofile.store.snapshots import was_shown

_OF_THE_COMMIT = ("settings", "versions", "extent")
"""Mappings that describe a commit as a whole; in all others each entry stands for itself."""
_UNIONS = ("set_aside", "short_days")
"""Lists of which all commits together count."""
_BY_FINGERPRINT = ("made_of",)
"""Mappings by the fingerprint of a piece; those that no piece has any more are left out."""


def keep(repository: icechunk.Repository, expiring: list[Commit]) -> None:
    """Copy what is needed of commits into the archive, before they expire.

    Args:
        repository: of the cube.
        expiring: the commits, the newest first.
    """
    older = [commit for commit in commits_in(repository) if commit.expired]
    kept = fold(expiring + older)
    session = _session(repository)
    group = zarr.open_group(session.store, mode="a")
    group.attrs["newest"] = kept[0].snapshot_id if kept else ""
    group.attrs["expired"] = int(str(group.attrs.get("expired", 0))) + len(expiring)
    session.commit("ledger of expired snapshots", {"commits": [entry_of(c) for c in kept]})


def _session(repository: icechunk.Repository) -> icechunk.Session:
    """A session on the archive, which holds no data and begins at the first snapshot of all."""
    if ARCHIVE not in repository.list_branches():
        *_, root = repository.ancestry(branch=MAIN)
        try:
            repository.create_branch(ARCHIVE, root.id)
        except icechunk.IcechunkError:
            # Somebody else may have made it meanwhile, or the reply was lost.
            if ARCHIVE not in repository.list_branches():
                raise
    return repository.writable_session(ARCHIVE)


def fold(commits: list[Commit]) -> list[Commit]:
    """Leave out what later commits have replaced, so that the ledger says the same.

    Args:
        commits: the newest first.

    Returns:
        The newest first; commits of which nothing is left are missing, but for the first
        publication, which tells a moment that has expired from one before the cube.
    """
    unresolved = open_failures(commits)
    seen: set[tuple[str, ...]] = set()
    live = _latest_fingerprints(commits)
    kept = []
    first = next((c for c in reversed(commits) if was_shown(c)), None)
    for commit in commits:
        if commit.failed_run:
            kept += _fold_run(commit, seen, unresolved)
            continue
        metadata, needed = _fold_one(commit.metadata, seen, unresolved, live)
        if needed or commit is first:
            kept.append(replace(commit, metadata=metadata, expired=True))
    return kept


def _fold_run(
    run: Commit, seen: set[tuple[str, ...]], unresolved: Mapping[str, str]
) -> list[Commit]:
    """A failed run with the jobs of it that no later one names; nothing where none is left."""
    failed = _unresolved(run.metadata, seen, unresolved)
    metadata = {"stage": run.metadata.get("stage", ""), "failed": failed}
    return [replace(run, metadata=metadata, expired=True)] if failed else []


def _unresolved(
    metadata: Mapping[str, Any], seen: set[tuple[str, ...]], unresolved: Mapping[str, str]
) -> list[Any]:
    failed = metadata.get("failed", ())
    return [f for f in failed if f["job"] in unresolved and _new(seen, "failed", f["job"])]


def _fold_one(
    metadata: Mapping[str, Any],
    seen: set[tuple[str, ...]],
    unresolved: Mapping[str, str],
    live: set[str],
) -> tuple[dict[str, Any], bool]:
    """What of a commit no later one (noted in ``seen``) replaces, and whether that is anything."""
    stage = str(metadata.get("stage", ""))
    found: dict[str, Any] = {}
    needed = False
    # What a commit has written counts after what it has withdrawn.
    for key in sorted(metadata, key=lambda key: key != "done"):
        value = metadata[key]
        if key in _BY_FINGERPRINT:
            value = {own: item for own, item in value.items() if own in live}
        if key == "failed":
            value = _unresolved(metadata, seen, unresolved)
            needed |= bool(value)
        elif key in _UNIONS:
            value = [item for item in value if _new(seen, key, str(item))]
            needed |= bool(value)
        elif key == "withdrawn":
            written = (name for name in value if (stage, "done", name) not in seen)
            value = [name for name in written if _new(seen, stage, key, name)]
            needed |= bool(value)
        elif isinstance(value, Mapping) and key not in _OF_THE_COMMIT:
            value = {name: item for name, item in value.items() if _new(seen, stage, key, name)}
            needed |= bool(value)
        needed |= _new(seen, stage, key)
        found[key] = value
    return found, needed


def _latest_fingerprints(commits: list[Commit]) -> set[str]:
    """Fingerprints with which pieces were written last.

    Also of pieces that were withdrawn since: the granules of some of their days may be gone, and
    what these were made of says that they are to be kept.
    """
    seen: set[tuple[str, ...]] = set()
    live: set[str] = set()
    for commit in commits:
        stage = str(commit.metadata.get("stage", ""))
        done = commit.metadata.get("done", {})
        live |= {own for name, own in done.items() if _new(seen, stage, name)}
    return live


def _new(seen: set[tuple[str, ...]], *what: str) -> bool:
    """Whether ``what`` was not seen yet; it is from now on."""
    if what in seen:
        return False
    seen.add(what)
    return True
