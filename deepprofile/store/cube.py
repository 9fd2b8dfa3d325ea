"""Opening a cube for reading."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import icechunk
import numpy as np
import xarray as xr
import zarr

import deepprofile.profile  # noqa: F401  (registers the accessor `.profile`)
from deepprofile.store.faults import explain
from deepprofile.store.messages import is_damaged
from deepprofile.store.repository import (
    MAIN,
    CubeError,
    StoreError,
    open_group,
    open_repository,
)
from deepprofile.store.snapshots import Moment, find_snapshot
from deepprofile.store.template import array_of, dimension_names
from deepprofile.store.writer import unit_of_writing

Chunks = Literal["shard"] | None


def open_cube(
    url: str | Path,
    *,
    branch: str = MAIN,
    snapshot: Moment | None = None,
    chunks: Chunks = "shard",
) -> xr.Dataset:
    """Open a cube as it was published last.

    The dataset shows one snapshot; it stays the same while others publish.

    Args:
        url: local path or ``s3://bucket/prefix``, see `open_repository`.
        branch: the branch whose head is opened.
        snapshot: an older state instead: the identity of a snapshot, or a moment, for what readers
            saw then. A moment is a date (its end, UTC) or a time (UTC where it names no zone), as
            ``datetime`` objects or text: ``"2016-08-15"``, ``"2016-08-15T12:00"``.
        chunks: ``"shard"`` for Dask arrays with a chunk for each shard; None for arrays that
            are read when they are indexed, as is best inside a job.

    Returns:
        Data variables as stored, coordinates in memory, ``time`` decoded to days.

    Raises:
        NotACubeError: if there is no cube.
        CubeError: if there is no such branch or snapshot, it has expired, or nothing was published
            by then.
        StoreError: if its metadata are damaged.
    """
    return open_session(session_at(url, snapshot, branch=branch), url, chunks=chunks)


def open_pinned(url: str | Path, snapshot: str) -> xr.Dataset:
    """A cube as one of its snapshots shows it, for jobs: arrays are read when they are indexed.

    The ledger is not read, as `open_cube` does to tell what an unknown snapshot may be.

    Args:
        url: local path or ``s3://bucket/prefix``.
        snapshot: its identity; empty for the newest.

    Raises:
        NotACubeError: if there is no cube.
        icechunk.IcechunkError: if there is no such snapshot any more.
    """
    if not snapshot:
        return open_cube(url, chunks=None)
    session = open_repository(url).readonly_session(snapshot_id=snapshot)
    return open_session(session, url, chunks=None)


def session_at(
    url: str | Path, snapshot: Moment | None = None, *, branch: str = MAIN
) -> icechunk.Session:
    """A read-only session of a cube, see `open_cube`."""
    with _damage_named(url):
        return _session_at(url, snapshot, branch)


def _session_at(url: str | Path, snapshot: Moment | None, branch: str) -> icechunk.Session:
    repository = open_repository(url)
    if snapshot is not None:
        identity = find_snapshot(repository, url, snapshot)
        return repository.readonly_session(snapshot_id=identity)
    try:
        return repository.readonly_session(branch)
    except (icechunk.IcechunkError, ValueError) as error:
        if is_damaged(str(error)):
            raise
        branches = ", ".join(sorted(repository.list_branches()))
        raise CubeError(f"{url}: has no branch {branch}. Branches: {branches}.") from error


def open_session(session: icechunk.Session, url: str | Path, *, chunks: Chunks) -> xr.Dataset:
    """The cube that a read-only session shows, see `open_cube`."""
    with _damage_named(url):
        return _open_session(session, url, chunks)


@contextmanager
def _damage_named(url: str | Path) -> Iterator[None]:
    """Say what to do where metadata are damaged; any other error of the store stays as it is."""
    try:
        yield
    except icechunk.IcechunkError as error:
        if not is_damaged(str(error)):
            raise
        raise StoreError(f"{url}: {explain(url, str(error))}") from error


def _open_session(session: icechunk.Session, url: str | Path, chunks: Chunks) -> xr.Dataset:
    store = session.store
    store.cube = str(url)  # type: ignore[attr-defined]  # named by errors of reading
    group = open_group(store, url)
    dataset: xr.Dataset = xr.open_zarr(
        store, consolidated=False, zarr_format=3, chunks=None, decode_coords="all"
    )
    dataset = dataset.assign_coords(
        {str(name): _in_memory(dataset[name]) for name in dataset.coords}
    )
    if chunks is None:
        return dataset
    return dataset.assign(
        {
            str(name): _by_shard(variable.variable, array_of(group, str(name)), session.snapshot_id)
            for name, variable in dataset.data_vars.items()
        }
    )


def _in_memory(coordinate: xr.DataArray) -> xr.Variable:
    """Values of a coordinate; text as NumPy's plain strings."""
    values = np.asarray(coordinate.values)
    text = values.dtype.kind in "OT"
    return coordinate.variable.copy(data=np.array(values.tolist(), dtype=str) if text else values)


def _by_shard(variable: xr.Variable, array: zarr.Array[Any], snapshot: str) -> xr.Variable:
    """A variable on Dask, a chunk for each shard: inner chunks would make far too many tasks."""
    chunks = dict(zip(dimension_names(array), unit_of_writing(array), strict=True))
    if 0 in variable.shape:
        return variable
    return variable.chunk(chunks, name=f"{array.name}-{snapshot}")
