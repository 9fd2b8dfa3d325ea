"""Expiring old snapshots of a cube, and deleting what only they needed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import icechunk
import zarr
from zarr.core.sync import sync

from deepprofile.store.archive import keep
from deepprofile.store.clock import store_time
from deepprofile.store.failed_runs import tidy
from deepprofile.store.faults import explained
from deepprofile.store.ledger import Commit, commits_in
from deepprofile.store.repository import (
    ConflictError,
    CubeError,
    exclusive,
    local_path,
    open_repository,
)
from deepprofile.store.shard_grid import chunk_key
from deepprofile.store.snapshots import shown_at
from deepprofile.store.staging import drop_stale

SAFETY = timedelta(days=1)
"""Age below which nothing in an object store is deleted: it may belong to a publication that is
running. It must be longer than any publication takes."""


@dataclass(frozen=True)
class Expiry:
    """What was expired, or would be.

    Attributes:
        snapshots: identities of the snapshots that no longer open, the newest first.
        oldest: the publication that is the oldest to open from now on; None where there is none.
        objects: objects of the store that were deleted.
        bytes: their size. A dry run counts the chunks alone, not their small metadata.
        dry_run: whether nothing was changed.
        kept_hours: age in hours below which objects stay; 0 where the age does not count.
    """

    snapshots: list[str]
    oldest: Commit | None
    objects: int
    bytes: int
    dry_run: bool
    kept_hours: float = 0.0


def expire(
    url: str | Path,
    before: datetime,
    *,
    dry_run: bool = False,
    safety: timedelta = SAFETY,
) -> Expiry:
    """Expire what readers of a cube could see only before a moment, and delete what is left over.

    What they saw at that moment, and all that was published since, still opens; the newest
    publication always does. The ledger stays whole. A dataset that was opened from a snapshot
    which expires raises an error when it reads what is deleted.

    Args:
        url: local path or ``s3://bucket/prefix``.
        before: the moment, with its zone.
        dry_run: only say what would be done.
        safety: in an object store, objects younger than this are never deleted. On a local disk a
            lock keeps publications out, and the age does not count.

    Raises:
        NotACubeError: if there is no cube.
        ConflictError: if somebody is publishing to a cube on a local disk, or expires snapshots
            of one in an object store at the same time.
        StoreError: if the clock of this machine is not that of the store.
        CubeError: if the moment has no zone.
    """
    if before.tzinfo is None:
        raise CubeError(f"{before}: a moment needs its zone, such as UTC")
    with explained(url):
        open_repository(url)  # a wrong place is told before a lock file lies beside it
    with explained(url), exclusive(url), _alone(url):
        repository = open_repository(url)
        now = datetime.now(UTC) if dry_run else store_time(url)
        oldest, kept, out = _split(commits_in(repository), before)
        expiring = [commit for commit in out if not commit.failed_run]
        # Objects have their age by the store's clock.
        local = local_path(url) is not None
        age = timedelta(0) if local else safety
        if dry_run:
            orphans = repository.garbage_collect(now - age, dry_run=True)
            n_chunks, n_bytes = _replaced(repository, [*expiring, *kept[-1:]])
            return Expiry(
                [commit.snapshot_id for commit in expiring],
                oldest,
                _objects(orphans) + n_chunks,
                orphans.bytes_deleted + n_bytes,
                dry_run,
                age / timedelta(hours=1),
            )
        drop_stale(repository, url)
        if expiring:
            keep(repository, out)
        # Before anything expires: what a failed run was followed by is told by the commits.
        tidy(repository)
        if expiring:
            shown = (commit.time for commit in kept if not commit.failed_run)
            repository.expire_snapshots(min(shown))
        freed = repository.garbage_collect(datetime.now(UTC) if local else now - age)
    return Expiry(
        [commit.snapshot_id for commit in expiring],
        oldest,
        _objects(freed),
        freed.bytes_deleted,
        dry_run,
        age / timedelta(hours=1),
    )


@contextmanager
def _alone(url: str | Path) -> Iterator[None]:
    """Raise ConflictError where somebody else changes a side branch at the same time."""
    try:
        yield
    except icechunk.ConflictError as error:
        raise ConflictError(
            f"{url}: somebody else expires snapshots of this cube at the same time. Nothing that "
            "is needed is lost. Wait until they have finished and run it again."
        ) from error


def _split(
    commits: list[Commit], before: datetime
) -> tuple[Commit | None, list[Commit], list[Commit]]:
    """The publication shown at a moment, the commits from it on, and those before it."""
    there = [commit for commit in commits if not commit.expired]
    oldest = shown_at(there, before)
    if oldest is None:
        return None, there, []
    place = there.index(oldest) + 1
    return oldest, there[:place], there[place:]


def _objects(summary: icechunk.GCSummary) -> int:
    return (
        summary.chunks_deleted
        + summary.manifests_deleted
        + summary.snapshots_deleted
        + summary.attributes_deleted
        + summary.transaction_logs_deleted
    )


def _replaced(repository: icechunk.Repository, commits: list[Commit]) -> tuple[int, int]:
    """Number and bytes of the chunks that a later one of the commits has written anew.

    Args:
        repository: of the cube.
        commits: in any order; all that expire and the oldest that stays.
    """
    chain = sorted(commits, key=lambda commit: commit.time)
    sizes: list[int] = []
    for older, newer in pairwise(chain):
        changed = repository.diff(
            from_snapshot_id=older.snapshot_id, to_snapshot_id=newer.snapshot_id
        )
        session = repository.readonly_session(snapshot_id=older.snapshot_id)
        for path, positions in changed.updated_chunks.items():
            sizes += sync(_native_sizes(session, path, positions))
    return len(sizes), sum(sizes)


async def _native_sizes(
    session: icechunk.Session, path: str, positions: Iterable[Iterable[int]]
) -> list[int]:
    """Bytes of the chunks of an array that are objects of their own."""
    try:
        await zarr.api.asynchronous.open_array(store=session.store, path=path, mode="r")
    except FileNotFoundError:
        return []
    sizes = []
    for position in positions:
        kind = await session.chunk_type_async(path, list(position))
        if kind == icechunk.ChunkType.NATIVE:
            sizes.append(await session.store.getsize(chunk_key(path, position)))
    return sizes
