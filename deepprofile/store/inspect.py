"""What is in a cube: extent, shards, holes, failures, history."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import zarr
from dask.utils import format_bytes
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from zarr.core.sync import sync

from deepprofile.store.layout import BLOCK_DAYS, Region, day_at
from deepprofile.store.ledger import Commit, history, open_failures
from deepprofile.store.repository import MAIN, open_group, open_repository
from deepprofile.store.template import KIND, array_of, dimension_names
from deepprofile.store.writer import Shard, region_of, unit_of_writing

_SHOWN = 8  # entries of a long list that are written out
_PLACE = {"y", "x", "cell"}


@dataclass(frozen=True)
class ArraySummary:
    """One data array of a cube.

    Attributes:
        name: name of the array.
        dims: sizes of its dimensions.
        dtype: type of its values.
        chunk_bytes: raw bytes of the chunk that is read at least.
        shard_bytes: raw bytes of the shard that is written.
        shards: number of shards that the whole array has, less those of tiles without land.
        present: number of those that exist.
    """

    name: str
    dims: dict[str, int]
    dtype: str
    chunk_bytes: int
    shard_bytes: int
    shards: int
    present: int

    @property
    def percent(self) -> float:
        """Share of the shards that exist, in percent."""
        return 100.0 * self.present / self.shards if self.shards else 100.0


@dataclass(frozen=True)
class Summary:
    """What is in a cube.

    Attributes:
        url: where it lies.
        kind: what it holds.
        snapshot_id: head of ``main``.
        region: what it covers; None if it is not on the grid.
        days: first and last day; None without a time axis or with an empty one.
        arrays: its data arrays.
        without_land: tiles in which there is nothing to write, each as row and column.
        model: fingerprint of the model of the newest commit that names one.
        precision: with which that commit computed.
        holes: shards that are missing although their tile (or cell) has others, or has land where
            the commits say which tiles have none.
        stored_bytes: bytes of all snapshots in the store.
        failures: jobs that failed and have not succeeded since, with their errors.
        set_aside: granules that were left out at some time, with the reason.
        short_days: days that had too few time steps at some time and are missing.
        commits: the ledger, the newest first.
    """

    url: str
    kind: str
    snapshot_id: str
    region: Region | None
    days: tuple[date, date] | None
    arrays: list[ArraySummary]
    without_land: list[str]
    model: str
    precision: str
    holes: list[Shard]
    stored_bytes: int
    failures: dict[str, str]
    set_aside: list[dict[str, Any]]
    short_days: list[str]
    commits: list[Commit] = field(repr=False)


def describe(url: str | Path) -> Summary:
    """Describe a cube from its metadata, the list of its shards and its commit log.

    Raises:
        NotACubeError: if there is no cube.
    """
    repository = open_repository(url)
    session = repository.readonly_session(MAIN)
    group = open_group(session.store, url)
    # What has a list of coordinates is data; a coordinate has none of its own.
    names = sorted(name for name, array in group.arrays() if "coordinates" in array.attrs)
    shards = {name: sync(_shards(session, name)) for name in names}
    arrays = {name: array_of(group, name) for name in names}
    commits = history(url)
    stored = repository.chunk_storage_stats()
    predicted = _newest_with("model", commits)
    without_land = list(_newest_with("without_land", commits).get("without_land", ()))
    return Summary(
        url=str(url),
        kind=str(group.attrs[KIND]),
        snapshot_id=session.snapshot_id,
        region=region_of(group.attrs) if "tile_rows" in group.attrs else None,
        days=_days(group),
        arrays=[_summarise(name, arrays[name], shards[name], len(without_land)) for name in names],
        without_land=without_land,
        model=str(predicted.get("model", "")),
        precision=str(predicted.get("precision", "")),
        holes=_holes(arrays, shards, _tiles_with_land(group, commits)),
        stored_bytes=stored.native_bytes + stored.inlined_bytes,
        failures=open_failures(commits),
        set_aside=_distinct(
            granule for c in commits for granule in c.metadata.get("set_aside", ())
        ),
        short_days=sorted({day for c in commits for day in c.metadata.get("short_days", ())}),
        commits=commits,
    )


def render(summary: Summary) -> RenderableType:
    """The summary for a terminal (``rich.print``)."""
    head = Table.grid(padding=(0, 2))
    for name, text in _head(summary):
        head.add_row(Text(name, style="bold"), Text(text))
    parts: list[RenderableType] = [head, _array_table(summary.arrays)]
    if summary.without_land:
        parts += _listing("Tiles without land, never scheduled", summary.without_land)
    parts += _listing("Holes", [f"{array} shard {position}" for array, position in summary.holes])
    parts += _listing("Failed jobs", [f"{job}: {error}" for job, error in summary.failures.items()])
    parts += _listing(
        "Granules set aside",
        [f"{granule.get('url')}: {granule.get('reason')}" for granule in summary.set_aside],
    )
    parts += _listing("Days with too few time steps", summary.short_days)
    return Group(*parts, _history_table(summary.commits))


def _newest_with(key: str, commits: list[Commit]) -> Mapping[str, Any]:
    """Metadata of the newest commit that has ``key``; empty if none has."""
    return next((commit.metadata for commit in commits if key in commit.metadata), {})


def _distinct(granules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each granule once; the same one is met again whenever its block is read again."""
    return list({str(granule): granule for granule in granules}.values())


async def _shards(session: icechunk.Session, name: str) -> set[tuple[int, ...]]:
    return {tuple(position) async for position in session.chunk_coordinates(f"/{name}")}


def _grid_of_shards(array: zarr.Array[Any]) -> tuple[int, ...]:
    return tuple(-(-n // unit) for n, unit in zip(array.shape, unit_of_writing(array), strict=True))


def _summarise(
    name: str, array: zarr.Array[Any], present: set[tuple[int, ...]], tiles_without: int
) -> ArraySummary:
    """Summary of an array; ``tiles_without`` of its tiles have nothing to write."""
    dims, counts = dimension_names(array), _grid_of_shards(array)
    per_tile = int(np.prod([n for dim, n in zip(dims, counts, strict=True) if dim not in _PLACE]))
    return ArraySummary(
        name=name,
        dims=dict(zip(dims, array.shape, strict=True)),
        dtype=str(array.dtype),
        chunk_bytes=int(np.prod(array.chunks)) * array.dtype.itemsize,
        shard_bytes=int(np.prod(unit_of_writing(array))) * array.dtype.itemsize,
        shards=int(np.prod(counts)) - tiles_without * per_tile,
        present=len(present),
    )


def _tiles_with_land(group: zarr.Group, commits: list[Commit]) -> set[tuple[int, ...]]:
    """Positions of the tiles that are to be written; empty if no commit says which have land."""
    noted = _newest_with("without_land", commits)
    if not noted or "tile_rows" not in group.attrs:
        return set()
    region = region_of(group.attrs)
    top, left = region.tile_rows[0], region.tile_columns[0]
    return {
        (tile.row - top, tile.column - left)
        for tile in region.tiles()
        if f"{tile.row} {tile.column}" not in noted["without_land"]
    }


def _holes(
    arrays: dict[str, zarr.Array[Any]],
    shards: dict[str, set[tuple[int, ...]]],
    tiles: set[tuple[int, ...]],
) -> list[Shard]:
    """Shards missing in some tiles, and at places where any array has one."""
    axes = {
        name: [axis for axis, dim in enumerate(dimension_names(array)) if dim in _PLACE]
        for name, array in arrays.items()
    }
    places = tiles | {
        tuple(position[axis] for axis in axes[name])
        for name, present in shards.items()
        for position in present
    }
    return [
        (name, position)
        for name, array in arrays.items()
        for position in _positions(array, axes[name], sorted(places))
        if position not in shards[name]
    ]


def _positions(
    array: zarr.Array[Any], axes: list[int], places: Iterable[tuple[int, ...]]
) -> Iterable[tuple[int, ...]]:
    """All shards of an array at some places."""
    counts = _grid_of_shards(array)
    for place in places:
        at = dict(zip(axes, place, strict=True))
        yield from product(
            *([at[axis]] if axis in at else range(count) for axis, count in enumerate(counts))
        )


def _days(group: zarr.Group) -> tuple[date, date] | None:
    n_days = array_of(group, "time").shape[0] if "time" in group else 0
    if n_days == 0:
        return None
    first = int(str(group.attrs["first_block"])) * BLOCK_DAYS
    return day_at(first), day_at(first + n_days - 1)


def _head(summary: Summary) -> list[tuple[str, str]]:
    lines = [("cube", f"{summary.kind} at {summary.url}"), ("snapshot", summary.snapshot_id)]
    if summary.region is not None:
        (top, bottom), (left, right) = summary.region.tile_rows, summary.region.tile_columns
        rows, columns = summary.region.shape
        text = f"tile rows {top}-{bottom - 1}, tile columns {left}-{right - 1}"
        lines.append(("region", f"{text} ({rows} x {columns} cells)"))
    if summary.days is not None:
        first, last = summary.days
        lines.append(("days", f"{first} to {last} ({(last - first).days + 1} days)"))
    named = {"model": summary.model, "precision": summary.precision}
    lines += [(name, text) for name, text in named.items() if text]
    lines.append(("stored", f"{format_bytes(summary.stored_bytes)}, all snapshots"))
    return lines


def _array_table(arrays: list[ArraySummary]) -> Table:
    table = Table("array", "dimensions", "type", box=None, header_style="bold")
    for name in ("chunk", "shard", "shards", "present"):
        table.add_column(name, justify="right")
    for array in arrays:
        table.add_row(
            array.name,
            ", ".join(f"{dim} {size}" for dim, size in array.dims.items()),
            array.dtype,
            format_bytes(array.chunk_bytes),
            format_bytes(array.shard_bytes),
            str(array.shards),
            f"{array.percent:.1f} %",
        )
    return table


def _listing(title: str, lines: list[str]) -> list[RenderableType]:
    if not lines:
        return [Text(f"{title}: none")]
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    return [Text(f"{title}: {len(lines)}", style="bold"), *map(Text, shown + more)]


def _history_table(commits: list[Commit]) -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("snapshot", "time (UTC)", "stage", "done", "failed"):
        table.add_column(name, no_wrap=True)
    table.add_column("message")
    for commit in commits[:_SHOWN]:
        table.add_row(
            commit.snapshot_id,
            f"{commit.time:%Y-%m-%d %H:%M}",
            str(commit.metadata.get("stage", "")),
            str(len(commit.metadata.get("done", ()))),
            str(len(commit.metadata.get("failed", ()))),
            commit.message,
        )
    return table
