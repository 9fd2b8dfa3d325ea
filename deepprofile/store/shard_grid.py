"""Which shards a cube has, and which it should have."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import icechunk
import zarr
from zarr.core.sync import sync

from deepprofile.store.ledger import Commit
from deepprofile.store.template import array_of, dimension_names
from deepprofile.store.writer import Shard, region_of, unit_of_writing

PLACE = ("y", "x", "cell")
"""Dimensions along which a shard is a place; along the others a place has several shards."""
Place = tuple[int, ...]


def data_arrays(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """The data arrays of a cube by name, in order of their names."""
    # What has a list of coordinates is data; a coordinate has none of its own.
    names = sorted(name for name, array in group.arrays() if "coordinates" in array.attrs)
    return {name: array_of(group, name) for name in names}


def chunk_key(array: str, position: Iterable[int]) -> str:
    """Key of a shard (or of a chunk, where there are no shards) in a cube's store."""
    return "/".join([array.strip("/"), "c", *map(str, position)])


def present_shards(session: icechunk.Session, name: str) -> set[tuple[int, ...]]:
    """Positions of the shards of an array that a snapshot lists."""
    return sync(_positions_of(session, name))


async def _positions_of(session: icechunk.Session, name: str) -> set[tuple[int, ...]]:
    return {tuple(position) async for position in session.chunk_coordinates(f"/{name}")}


def grid_of_shards(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Number of shards along each dimension."""
    return tuple(-(-n // unit) for n, unit in zip(array.shape, unit_of_writing(array), strict=True))


def place_of(array: zarr.Array[Any], position: tuple[int, ...]) -> Place:
    """The place of a shard: its position along the dimensions of PLACE."""
    return tuple(position[axis] for axis in _place_axes(array))


def newest_with(key: str, commits: Iterable[Commit]) -> Mapping[str, Any]:
    """Metadata of the first commit that has ``key``; empty if none has."""
    return next((commit.metadata for commit in commits if key in commit.metadata), {})


def places_with_land(group: zarr.Group, commits: Iterable[Commit]) -> set[Place]:
    """Places of the tiles that are to be written; empty if no commit says which have land.

    Args:
        group: of the cube.
        commits: the newest first.
    """
    noted = newest_with("without_land", commits)
    if not noted or "tile_rows" not in group.attrs:
        return set()
    region = region_of(group.attrs)
    top, left = region.tile_rows[0], region.tile_columns[0]
    return {
        (tile.row - top, tile.column - left)
        for tile in region.tiles()
        if f"{tile.row} {tile.column}" not in noted["without_land"]
    }


def expected_shards(
    arrays: Mapping[str, zarr.Array[Any]],
    present: Mapping[str, set[tuple[int, ...]]],
    places: set[Place],
    since: int = 0,
) -> list[Shard]:
    """All shards, inside the extent, of some places and of those where any array has a shard.

    Args:
        arrays: the data arrays of a cube.
        present: positions of the shards that each of them has.
        places: some places.
        since: position in time of the first block that is written, see `Pieces.since`.
    """
    there = places | {
        place_of(arrays[name], position)
        for name, positions in present.items()
        for position in positions
    }
    return [
        (name, position)
        for name, array in arrays.items()
        for position in _all_of(array, sorted(there), since)
    ]


def _place_axes(array: zarr.Array[Any]) -> list[int]:
    return [axis for axis, dim in enumerate(dimension_names(array)) if dim in PLACE]


def _all_of(
    array: zarr.Array[Any], places: Iterable[Place], since: int
) -> Iterable[tuple[int, ...]]:
    """All shards of an array at some places."""
    axes, counts = _place_axes(array), grid_of_shards(array)
    ranges = [
        range(since if dim == "time" else 0, count)
        for dim, count in zip(dimension_names(array), counts, strict=True)
    ]
    for place in places:
        at = dict(zip(axes, place, strict=True))
        yield from product(
            *([at[axis]] if axis in at else part for axis, part in enumerate(ranges))
        )
