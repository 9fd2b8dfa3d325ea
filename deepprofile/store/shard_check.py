"""Checks of single shards, as jobs run them: there, whole, decodable, with sound values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from deepprofile.store.cube import session_at
from deepprofile.store.messages import cause
from deepprofile.store.packing import ABSENT, CHECKSUM_BYTES
from deepprofile.store.repository import open_group
from deepprofile.store.shard_grid import chunk_key
from deepprofile.store.template import KIND, array_of
from deepprofile.store.writer import Shard, region_of_shard

_WITH_PROFILE = (0, 1)
"""Flags of coefficients with which a profile is there: valid, gap filled."""


class DamagedError(ValueError):
    """A shard that can't be used; the message says why."""


@dataclass(frozen=True)
class CheckJob:
    """Shards to check: in each group those of one place and one stretch of time."""

    key: str
    groups: tuple[tuple[Shard, ...], ...]


@dataclass(frozen=True)
class Checked:
    """What a job found.

    Attributes:
        problems: shards and what is wrong with them.
        bytes: stored bytes of the shards by name of their array.
        counts: number of values that are there, and of all, by name of their array; empty in a
            quick check.
    """

    problems: list[tuple[Shard, str]]
    bytes: dict[str, int]
    counts: dict[str, tuple[int, int]]


def check_shards(job: CheckJob, url: str, snapshot: str, quick: bool) -> Checked:
    """Check shards; a quick check reads the index of each shard, or a byte where it has none."""
    session = session_at(url, snapshot)
    group = open_group(session.store, url)
    found = Checked([], {}, {})
    for shards in job.groups:
        values: dict[str, NDArray[Any]] = {}
        for shard in shards:
            array = array_of(group, shard[0])
            try:
                size = _stored_size(session.store, array, shard)
                found.bytes[shard[0]] = found.bytes.get(shard[0], 0) + size
                if not quick:
                    values[shard[0]] = _decoded(session.store, array, shard, size)
            except (icechunk.IcechunkError, ValueError, RuntimeError, TypeError) as error:
                found.problems.append((shard, _reason(error)))
        for shard in shards:
            if shard[0] in values:
                _count(found, shard[0], values[shard[0]])
        found.problems.extend(
            (shard, text)
            for shard in shards
            for text in unsound(str(group.attrs[KIND]), shard[0], values)
        )
    return found


def unsound(kind: str, name: str, values: Mapping[str, NDArray[Any]]) -> list[str]:
    """What is wrong with the values of an array at one place, by itself and beside the others.

    Args:
        kind: of the cube.
        name: of the array.
        values: of all arrays of the place that could be read, in the shapes of their shards.
    """
    if name not in values:
        return []
    own = values[name]
    problems = []
    infinite = int(np.isinf(own).sum()) if own.dtype.kind == "f" else 0
    if infinite:
        problems.append(f"{infinite} values are infinite; missing values are NaN")
    if name == "land" and (own > 1).any():
        problems.append(f"{int((own > 1).sum())} cells of the land mask are neither 0 nor 1")
    if name in ("soil_moisture", "forcing") and "n_steps" in values:
        stray = _cells(own) & (values["n_steps"] == 0)
        if stray.any():
            problems.append(f"{int(stray.sum())} cell-days have values but no time step")
    if name == "coefficients" and "flag" in values:
        wrong = _whole_cells(own) != np.isin(values["flag"], _WITH_PROFILE)
        if wrong.any():
            problems.append(f"{int(wrong.sum())} cell-days have a profile or none against the flag")
    if kind == "collocation" and name == "weight" and "flag" in values:
        bare = (values["flag"] == 0) & ~np.isfinite(own).all(axis=0)
        if bare.any():
            problems.append(f"{int(bare.sum())} cells are flagged valid and have no weights")
    return problems


def _cells(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Cell-days with any value; ``values`` is (time, something, y, x)."""
    return np.asarray(np.isfinite(values).any(axis=1))


def _whole_cells(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Cell-days with all values; ``values`` is (time, something, y, x)."""
    return np.asarray(np.isfinite(values).all(axis=1))


def _count(found: Checked, name: str, values: NDArray[Any]) -> None:
    there = int(np.isfinite(values).sum()) if values.dtype.kind == "f" else values.size
    before = found.counts.get(name, (0, 0))
    found.counts[name] = before[0] + there, before[1] + values.size


def _stored_size(store: icechunk.IcechunkStore, array: zarr.Array[Any], shard: Shard) -> int:
    """Bytes of a stored shard, of which the end is there and its index fits.

    Raises:
        DamagedError: if the index does not fit the shard.
        IcechunkError: if the object is not there or too short.
    """
    key = chunk_key(*shard)
    size = int(sync(store.getsize(key)))
    inner = int(np.prod([s // c for s, c in zip(array.shards or (), array.chunks, strict=False)]))
    length = 16 * inner + CHECKSUM_BYTES if array.shards else 1
    if length > size:
        raise DamagedError(f"{size} bytes are stored, fewer than the index has ({length})")
    end = sync(store.get(key, default_buffer_prototype(), RangeByteRequest(size - length, size)))
    if end is None or len(end) != length:
        raise DamagedError(f"the last {length} of {size} bytes can't be read")
    if array.shards:
        _check_index(end.to_bytes()[:-CHECKSUM_BYTES], size - length)
    return size


def _check_index(index: bytes, size: int) -> None:
    """Raise DamagedError unless the inner chunks fill the shard up to its index."""
    offsets, lengths = np.frombuffer(index, "<u8").reshape(-1, 2).T
    absent = int((offsets == ABSENT).sum())
    if absent:
        raise DamagedError(f"{absent} of {offsets.size} chunks are not in the shard")
    order = np.argsort(offsets)
    ends = np.cumsum(lengths[order])
    if int(ends[-1]) != size or (offsets[order] != ends - lengths[order]).any():
        raise DamagedError("its index does not fit: the stored object is damaged or cut off")


def _decoded(
    store: icechunk.IcechunkStore, array: zarr.Array[Any], shard: Shard, size: int
) -> NDArray[Any]:
    """Values of a shard; every chunk is decoded and its checksum compared.

    Raises:
        DamagedError: if it is shorter than the snapshot says.
        ValueError: if a checksum differs.
    """
    name, position = shard
    raw = sync(store.get(chunk_key(name, position), default_buffer_prototype()))
    metadata = sync(store.get(f"{name}/zarr.json", default_buffer_prototype()))
    if raw is None or metadata is None or len(raw) != size:
        found = 0 if raw is None else len(raw)
        raise DamagedError(f"{found} bytes are stored, expected {size}")
    memory = MemoryStore({"zarr.json": metadata, chunk_key("", position).strip("/"): raw})
    alone = zarr.open_array(memory, mode="r")
    return np.asarray(alone[region_of_shard(array, position)])


def _reason(error: Exception) -> str:
    if isinstance(error, icechunk.IcechunkError):
        text = cause(str(error))
        if "not found" in text or "NoSuchKey" in text:
            return f"its object is gone from the store: {text}"
        return f"its object can't be read, or is shorter than it was written: {text}"
    if isinstance(error, DamagedError):
        return str(error)
    text = str(error).rpartition("can't be read: ")[2]  # the shard is named beside it
    return text if "is damaged" in text else f"can't be decoded: {text}"
