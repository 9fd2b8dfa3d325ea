"""What is in a cube: extent, shards, holes, failures, history."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from dask.utils import format_bytes
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepprofile.store.faults import explained
from deepprofile.store.layout import BLOCK_DAYS, Region, day_at
from deepprofile.store.ledger import Commit, commits_in, open_failures
from deepprofile.store.pieces import Pieces, count_pieces
from deepprofile.store.repository import MAIN, open_group, open_repository
from deepprofile.store.shard_grid import (
    PLACE,
    data_arrays,
    expected_shards,
    grid_of_shards,
    newest_with,
    places_with_land,
    present_shards,
)
from deepprofile.store.snapshots import publications
from deepprofile.store.template import KIND, array_of, dimension_names
from deepprofile.store.writer import Shard, region_of, unit_of_writing

_SHOWN = 8  # entries of a long list that are written out


@dataclass(frozen=True)
class ArraySummary:
    """One data array of a cube.

    Attributes:
        name: name of the array.
        dims: sizes of its dimensions.
        dtype: type of its values.
        chunk_bytes: raw bytes of the chunk that is read at least.
        shard_bytes: raw bytes of the shard that is written.
        shards: number of shards that the whole array has, less those of tiles without land and
            of blocks before the first that is written.
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
        pieces: of each stage, the pieces that the ledger says are done, and all that it knows:
            those, the failed and the withdrawn.
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
    pieces: dict[str, tuple[int, int]]
    failures: dict[str, str]
    set_aside: list[dict[str, Any]]
    short_days: list[str]
    commits: list[Commit] = field(repr=False)


def describe(url: str | Path) -> Summary:
    """Describe a cube from its metadata, the list of its shards and its commit log.

    Raises:
        NotACubeError: if there is no cube.
        StoreError: if its metadata are damaged or the store fails.
    """
    with explained(url):
        return _describe(url)


def _describe(url: str | Path) -> Summary:
    repository = open_repository(url)
    commits = commits_in(repository)
    session = repository.readonly_session(MAIN)
    group = open_group(session.store, url)
    arrays = data_arrays(group)
    shards = {name: present_shards(session, name) for name in arrays}
    stored = repository.chunk_storage_stats()
    predicted = newest_with("model", commits)
    since = Pieces(group, commits).since
    without_land = list(newest_with("without_land", commits).get("without_land", ()))
    return Summary(
        url=str(url),
        kind=str(group.attrs[KIND]),
        snapshot_id=session.snapshot_id,
        region=region_of(group.attrs) if "tile_rows" in group.attrs else None,
        days=_days(group),
        arrays=[
            _summarise(name, arrays[name], shards[name], len(without_land), since)
            for name in arrays
        ],
        without_land=without_land,
        model=str(predicted.get("model", "")),
        precision=str(predicted.get("precision", "")),
        holes=[
            (name, position)
            for name, position in expected_shards(
                arrays, shards, places_with_land(group, commits), since
            )
            if position not in shards[name]
        ],
        stored_bytes=stored.native_bytes + stored.inlined_bytes,
        pieces=count_pieces(commits),
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


def _distinct(granules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each granule once; the same one is met again whenever its block is read again."""
    return list({str(granule): granule for granule in granules}.values())


def _summarise(
    name: str,
    array: zarr.Array[Any],
    present: set[tuple[int, ...]],
    tiles_without: int,
    since: int,
) -> ArraySummary:
    """Summary of an array; ``tiles_without`` of its tiles and what lies before the position
    ``since`` in time have nothing to write.
    """
    dims = dimension_names(array)
    counts = [
        n - since if dim == "time" else n
        for dim, n in zip(dims, grid_of_shards(array), strict=True)
    ]
    per_tile = int(np.prod([n for dim, n in zip(dims, counts, strict=True) if dim not in PLACE]))
    return ArraySummary(
        name=name,
        dims=dict(zip(dims, array.shape, strict=True)),
        dtype=str(array.dtype),
        chunk_bytes=int(np.prod(array.chunks)) * array.dtype.itemsize,
        shard_bytes=int(np.prod(unit_of_writing(array))) * array.dtype.itemsize,
        shards=int(np.prod(counts)) - tiles_without * per_tile,
        present=len(present),
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
    lines += [
        (stage, f"{done} of {known} pieces done ({100 * done / known:.1f} %)")
        for stage, (done, known) in summary.pieces.items()
    ]
    there = publications(summary.commits)
    if there:
        first, last = there[-1].time, there[0].time
        number = f"{len(there)} snapshot{'s' if len(there) > 1 else ''}"
        opens = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC ({number})"
        lines.append(("opens as of", opens))
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
            "none" if commit.failed_run else "expired" if commit.expired else commit.snapshot_id,
            f"{commit.time:%Y-%m-%d %H:%M}",
            str(commit.metadata.get("stage", "")),
            str(len(commit.metadata.get("done", ()))),
            str(len(commit.metadata.get("failed", ()))),
            commit.message,
        )
    return table
