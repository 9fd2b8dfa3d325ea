"""A plain Zarr v3 copy of a snapshot, for readers without Icechunk.

Shards are copied as they are stored, without decoding: layout and codecs stay the same.
"""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from secrets import token_hex
from typing import Any

import icechunk
import zarr
from distributed import Client
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from deepprofile.places import filesystem, local_path, redacted
from deepprofile.store.cube import session_at
from deepprofile.store.faults import explained
from deepprofile.store.jobs import Progress, run_jobs
from deepprofile.store.messages import cause
from deepprofile.store.repository import CubeError, open_group, open_repository
from deepprofile.store.shard_grid import chunk_key, present_shards
from deepprofile.store.snapshots import Moment

SOURCE = "deepprofile_source"
"""Root attribute of a copy that says which cube it was made from."""
_ROOT = "zarr.json"
_UNFINISHED = ".deepprofile-unfinished"
"""Object beside a copy in an object store for as long as it is not whole."""
_BATCH = 32  # shards of one job


@dataclass(frozen=True)
class PlainCopy:
    """What was copied.

    Attributes:
        snapshot_id: the snapshot.
        shards: number of shards and of chunks of coordinates.
        bytes: their stored size.
    """

    snapshot_id: str
    shards: int
    bytes: int


@dataclass(frozen=True)
class CopyJob:
    """Some shards to copy; ``keys`` are those of the store."""

    key: str
    keys: tuple[str, ...]


def copy_plain(
    url: str | Path,
    output: str | Path,
    *,
    client: Client,
    snapshot: Moment | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> PlainCopy:
    """Copy a snapshot into a plain sharded Zarr v3 group with consolidated metadata.

    ``xarray.open_zarr`` opens the copy. The metadata are written last. On a local disk the copy
    appears under its name when it is whole; in an object store readers find no group until then.

    Args:
        url: the cube.
        output: local path or ``s3://bucket/prefix``; absent or empty.
        client: client of the cluster; a worker holds one stored shard for each thread.
        snapshot: which one, see `open_cube`; by default the newest.
        overwrite: replace an earlier copy of a cube that lies there.
        on_progress: called with the numbers of ended and of all jobs.

    Raises:
        NotACubeError: if there is no cube.
        CubeError: if there is no such snapshot, something lies at ``output``, or a shard can't be
            read or written.
        StoreError: if the cube's metadata are damaged or the store fails.
    """
    with explained(url):
        return _copy_plain(url, output, client, snapshot, overwrite, on_progress)


def _copy_plain(
    url: str | Path,
    output: str | Path,
    client: Client,
    snapshot: Moment | None,
    overwrite: bool,
    on_progress: Progress | None,
) -> PlainCopy:
    session = session_at(url, snapshot)
    group = open_group(session.store, url)
    keys = [
        chunk_key(name, position)
        for name in sorted(group.array_keys())
        for position in sorted(present_shards(session, name))
    ]
    parts = [tuple(keys[i : i + _BATCH]) for i in range(0, len(keys), _BATCH)]
    jobs = [CopyJob(f"shards from {part[0]}", part) for part in parts]
    metadata = _metadata(session, group, url)
    with _target(url, output, overwrite) as place:
        args = (str(url), session.snapshot_id, place)
        done, failed = run_jobs(client, _copy, jobs, args=args, on_done=on_progress)
        if failed:
            raise CubeError(
                f"{output}: {len(failed)} of {len(jobs)} jobs failed, no copy was made. The first, "
                f"{failed[0].job.key}: {failed[0].error}"
            )
        for key, document in metadata.items():
            _put(place, key, document)
    return PlainCopy(session.snapshot_id, len(keys), sum(size for _, size in done))


@contextmanager
def _target(url: str | Path, output: str | Path, overwrite: bool) -> Iterator[str]:
    """Where the copy is written; it is shown as ``output`` when the context ends well."""
    path = local_path(output)
    source = local_path(url)
    if path is not None and source is not None and path.absolute() == source.absolute():
        raise CubeError(f"{output}: is the cube itself; name another place for the copy")
    if path is not None:
        _finish_rename(path)
    found = _found_at(output)
    if found and not overwrite:
        raise CubeError(f"{output}: exists. Name another place, or replace it with --overwrite.")
    if found:
        _check_replaceable(output)
    if path is None:
        store, place = filesystem(output)
        _empty(store, place)
        yield str(output)
        store.rm_file(f"{place}/{_UNFINISHED}")
        return
    part = path.with_name(f".{path.name}.part-{token_hex(4)}")
    part.mkdir(parents=True)
    try:
        yield str(part)
        _rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _found_at(output: str | Path) -> bool:
    store, path = filesystem(output)
    try:
        return bool(store.isfile(path) or store.ls(path, detail=False))
    except FileNotFoundError:
        return False


def _check_replaceable(output: str | Path) -> None:
    """Raise CubeError unless what lies at ``output`` is a copy that was made or begun here."""
    store, path = filesystem(output)
    if store.exists(f"{path}/{_UNFINISHED}"):
        return
    try:
        attributes = json.loads(store.cat_file(f"{path}/{_ROOT}")).get("attributes", {})
    except (OSError, ValueError):
        attributes = {}
    if SOURCE not in attributes:
        raise CubeError(
            f"{output}: is no copy of a cube (the root attribute {SOURCE} is not there), and is "
            "not overwritten. Remove it yourself or name another place."
        )


def _empty(store: Any, path: str) -> None:
    """Mark a prefix of an object store as unfinished, and empty it.

    The root goes first, so that readers find no half; the mark tells a later call that what is
    left of this one may be replaced.
    """
    mark, root = f"{path}/{_UNFINISHED}", f"{path}/{_ROOT}"
    store.pipe_file(mark, b"")
    names = set(store.find(path)) - {mark}
    if root in names:
        store.rm_file(root)
    if names - {root}:
        store.rm(sorted(names - {root}))


def _rename(part: Path, path: Path) -> None:
    """Put a finished folder in its place; what was there goes."""
    old = path.with_name(f"{part.name}.old")
    if path.exists():
        path.rename(old)
    part.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _finish_rename(path: Path) -> None:
    """Complete what a call that was killed between its two renames left.

    A folder that was put aside means that the one beside it, without ``.old``, is whole.
    """
    for old in path.parent.glob(f".{escape(path.name)}.part-*.old"):
        part = old.with_name(old.name.removesuffix(".old"))
        if not path.exists():
            (part if part.exists() else old).rename(path)
        shutil.rmtree(old, ignore_errors=True)


def _copy(job: CopyJob, url: str, snapshot: str, place: str) -> int:
    """Copy some shards, one after another; returns their bytes."""
    source = session_at(url, snapshot).store
    return sum(_put(place, key, _stored(source, key)) for key in job.keys)


def _stored(source: icechunk.IcechunkStore, key: str) -> bytes:
    """A shard as it is stored.

    Raises:
        CubeError: if it can't be read or is not as long as the snapshot says.
    """
    size = sync(source.getsize(key))
    try:
        data = sync(source.get(key, default_buffer_prototype()))
    except icechunk.IcechunkError as error:
        raise CubeError(
            f"{key} can't be read: {cause(str(error))}. Run `deepprofile verify` on the cube."
        ) from error
    found = 0 if data is None else len(data)
    if data is None or found != size:
        raise CubeError(
            f"{key} has {found} bytes, expected {size}. Run `deepprofile verify` on the cube."
        )
    return data.to_bytes()


def _put(place: str, key: str, data: bytes) -> int:
    store, path = filesystem(place)
    target = f"{path}/{key}"
    if local_path(place) is not None:
        store.makedirs(target.rpartition("/")[0], exist_ok=True)
    store.pipe_file(target, data)
    return len(data)


def _metadata(session: icechunk.Session, group: zarr.Group, url: str | Path) -> dict[str, bytes]:
    """Metadata documents of the copy by key, the root's consolidated and with provenance."""
    memory = MemoryStore()
    keys = [*(f"{name}/{_ROOT}" for name in group.array_keys()), _ROOT]
    for key in keys:
        data = _stored(session.store, key)
        sync(memory.set(key, default_buffer_prototype().buffer.from_bytes(data)))
    published = next(iter(open_repository(url).ancestry(snapshot_id=session.snapshot_id)))
    zarr.open_group(memory, mode="r+").update_attributes(
        {
            SOURCE: redacted(str(url)),
            "deepprofile_snapshot": session.snapshot_id,
            "deepprofile_published": published.written_at.isoformat(),
            "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    with warnings.catch_warnings():
        # Not in the specification yet: readers that don't know it look at each array.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(memory, zarr_format=3)
    documents = {key: sync(memory.get(key, default_buffer_prototype())) for key in keys}
    return {key: document.to_bytes() for key, document in documents.items() if document}
