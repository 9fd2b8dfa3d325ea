"""What a run changed: snapshots and ledgers of its cubes before and after, as numbers."""

from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray
from zarr.core.sync import sync

from deepprofile.model.flags import Flag
from deepprofile.store import Commit, NotACubeError, history, open_cube
from deepprofile.store.layout import BLOCK_DAYS
from deepprofile.store.repository import MAIN, open_group, open_repository
from deepprofile.store.shard_grid import chunk_key
from deepprofile.store.template import array_of

PROFILE = (Flag.VALID, Flag.GAP_FILLED)
"""Flags of days with a profile."""


@dataclass(frozen=True)
class Seen:
    """A cube as readers see it.

    Attributes:
        url: of the cube.
        snapshot: what ``main`` shows; None where there is no cube.
        stop: index of the day after its last, 0 without any.
        n_days: number of its days.
    """

    url: str
    snapshot: str | None = None
    stop: int = 0
    n_days: int = 0

    @property
    def commits(self) -> list[Commit]:
        """The ledger up to the snapshot, the newest first."""
        return history(self.url) if self.snapshot else []


def look(url: str) -> Seen:
    """The cube at a place as it is now."""
    try:
        repository = open_repository(url)
        snapshot = str(repository.lookup_branch(MAIN))
        group = open_group(repository.readonly_session(snapshot_id=snapshot).store, url)
    except NotACubeError:
        return Seen(url)
    n_days = array_of(group, "time").shape[0]
    first = int(str(group.attrs["first_block"])) * BLOCK_DAYS
    return Seen(url, snapshot, first + n_days if n_days else 0, n_days)


def commits_since(before: Seen, after: Seen) -> list[Commit]:
    """The publications that ``after`` has and ``before`` has not, the newest first."""
    published = (commit for commit in after.commits if not commit.failed_run)
    return list(takewhile(lambda commit: commit.snapshot_id != before.snapshot, published))


def bytes_written(before: Seen, after: Seen) -> int:
    """Packed bytes of all shards of a cube that are others than before."""
    if after.snapshot in (None, before.snapshot):
        return 0
    repository = open_repository(after.url)
    *_, first = repository.ancestry(snapshot_id=after.snapshot)
    changed = repository.diff(
        from_snapshot_id=before.snapshot or first.id, to_snapshot_id=after.snapshot
    ).updated_chunks
    store = repository.readonly_session(snapshot_id=after.snapshot).store
    keys = [
        chunk_key(path, position) for path, positions in changed.items() for position in positions
    ]
    return sum(sync(store.getsize(key)) for key in keys)


def share_with_profile(url: str, land: NDArray[np.bool_]) -> float:
    """Share of the land cells of a cube that have a profile on its last day."""
    flag = open_cube(url, chunks=None)["flag"][-1].values
    return float(np.isin(flag[land], PROFILE).mean())
