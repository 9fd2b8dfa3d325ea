"""Writing inside a job: whole shards only, checked before they are written."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import zarr
from icechunk import Session
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from deepprofile.store.layout import BLOCK_DAYS, Block, Region, Tile
from deepprofile.store.packing import pack, packing_of
from deepprofile.store.rounding import round_mantissa
from deepprofile.store.template import array_of, dimension_names

IN_FLIGHT = 3
"""Shards of one write that are packed and sent at the same time: the store's delay is hidden."""
Shard = tuple[str, tuple[int, ...]]
"""Name of an array and the position of one unit of writing in its grid."""


class WriteError(ValueError):
    """A write that a cube does not take: not whole shards, another shape or type, infinite."""


class Writer:
    """Writes a job's results into the job's own fork of the cube's session.

    A shard belongs to one job; writing a part of a shard would lose what others wrote.

    Attributes:
        written: the shards written so far.
    """

    def __init__(self, session: Session) -> None:
        """Open the cube that ``session`` writes."""
        # Configured here, not by the job: a shard that holds only fill values must exist too,
        # or a hole could not be told from a place without data.
        with zarr.config.set({"array.write_empty_chunks": True}):
            self._group = zarr.open_group(session.store, mode="r+")
            self._arrays = {name: array_of(self._group, name) for name in self._group.array_keys()}
        self.written: list[Shard] = []

    @property
    def region(self) -> Region:
        """What the cube covers."""
        return region_of(self._group.attrs)

    def select(self, tile: Tile | None = None, block: Block | None = None) -> dict[str, slice]:
        """Selection of a tile and a block, in indices of this cube.

        Days after the end of the time axis are left out.

        Raises:
            WriteError: if the tile or the block lies outside the cube.
        """
        selection: dict[str, slice] = {}
        if tile is not None:
            selection["y"], selection["x"] = self._local(tile)
        if block is not None:
            selection["time"] = self._days(block)
        return selection

    def write(self, array: str, selection: Mapping[str, slice], data: NDArray[Any]) -> None:
        """Write whole shards.

        Args:
            array: name of the array.
            selection: slice of each dimension, in indices of this cube; dimensions that are not
                named are written whole. A slice begins where a shard begins and stops where one
                stops, or at the end of the array.
            data: the values, in the array's dtype and the selection's shape.

        Raises:
            WriteError: if the selection does not consist of whole shards, the shape or dtype is
                another, or a value is infinite.
            KeyError: if the cube has no such array.
        """
        target = self._arrays.get(array)
        if target is None:
            target = array_of(self._group, array)
        slices = _whole_shards(target, array, selection)
        _check_data(target, array, slices, data)
        places = [
            _shard(target, slices, position)
            for position in np.ndindex(*_shard_counts(target, slices))
        ]
        if len(places) == 1:
            _write_shard(target, array, places[0][0], data)
        else:
            with ThreadPoolExecutor(min(len(places), IN_FLIGHT)) as pool:
                for done in [
                    pool.submit(_write_shard, target, array, shard, data[part])
                    for shard, part in places
                ]:
                    done.result()
        self.written += [(array, shard) for shard, _ in places]

    def _local(self, tile: Tile) -> tuple[slice, slice]:
        if tile not in self.region:
            raise WriteError(f"{tile} lies outside the cube's {self.region}")
        return self.region.local(tile)

    def _days(self, block: Block) -> slice:
        n_days = array_of(self._group, "time").shape[0]
        first = int(str(self._group.attrs["first_block"])) * BLOCK_DAYS
        start, stop = block.days.start - first, min(block.days.stop - first, n_days)
        if not 0 <= start < stop:
            raise WriteError(
                f"{block} lies outside the cube's time axis of {n_days} days from day {first}"
            )
        return slice(start, stop)


def region_of(attributes: Mapping[Any, Any]) -> Region:
    """Region of a cube from the attributes of its root.

    Raises:
        ValueError: if the cube is not on the grid.
    """
    if "tile_rows" not in attributes:
        raise ValueError(f"a {attributes.get('deepprofile_kind')} cube has no region of tiles")
    rows, columns = attributes["tile_rows"], attributes["tile_columns"]
    return Region((int(rows[0]), int(rows[1])), (int(columns[0]), int(columns[1])))


def unit_of_writing(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Shape of a shard, or of a chunk where there are no shards."""
    return array.shards or array.chunks


def _whole_shards(
    array: zarr.Array[Any], name: str, selection: Mapping[str, slice]
) -> tuple[slice, ...]:
    dims = dimension_names(array)
    unknown = sorted(selection.keys() - set(dims))
    if unknown:
        raise WriteError(f"{name}: no dimension {', '.join(unknown)}; it has {', '.join(dims)}")
    slices = []
    for dim, size, unit in zip(dims, array.shape, unit_of_writing(array), strict=True):
        chosen = selection.get(dim, slice(0, size))
        start, stop = chosen.start, chosen.stop
        whole = start % unit == 0 and (stop % unit == 0 or stop == size)
        if chosen.step not in (None, 1) or not 0 <= start < stop <= size or not whole:
            raise WriteError(
                f"{name}: {dim} {start} to {stop} is not made of whole shards: expected a range "
                f"inside 0 to {size} that starts and stops at multiples of {unit} or at the end. "
                "A part of a shard would overwrite what other jobs have written."
            )
        slices.append(slice(start, stop))
    return tuple(slices)


def _check_data(
    array: zarr.Array[Any], name: str, slices: tuple[slice, ...], data: NDArray[Any]
) -> None:
    shape = tuple(chosen.stop - chosen.start for chosen in slices)
    if data.shape != shape or data.dtype != array.dtype:
        raise WriteError(
            f"{name}: found data of shape {data.shape} and type {data.dtype}, "
            f"expected shape {shape} and type {array.dtype}"
        )


def _write_shard(
    array: zarr.Array[Any], name: str, shard: tuple[int, ...], values: NDArray[Any]
) -> None:
    """Round, pack and store one shard, in place of what is there."""
    _check_finite(name, shard, values)
    keep_bits = array.attrs.get("keep_bits")
    if keep_bits is not None:
        values = round_mantissa(values, int(str(keep_bits)))
    packing = packing_of(array)
    if packing is None or array.shards is None:
        array[region_of_shard(array, shard)] = values
        return
    packed = pack(values, array.shards, packing, array.fill_value)
    key = "/".join(filter(None, [array.path, array.metadata.encode_chunk_key(shard)]))
    sync(array.store.set(key, default_buffer_prototype().buffer.from_bytes(packed)))


def _check_finite(name: str, shard: tuple[int, ...], values: NDArray[Any]) -> None:
    infinite = int(np.count_nonzero(np.isinf(values))) if values.dtype.kind == "f" else 0
    if infinite:
        raise WriteError(
            f"{name}: {infinite} of {values.size} values of shard {shard} are infinite; "
            "missing values are NaN"
        )


def _shard_counts(array: zarr.Array[Any], slices: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(
        -(-(chosen.stop - chosen.start) // unit)
        for chosen, unit in zip(slices, unit_of_writing(array), strict=True)
    )


def _shard(
    array: zarr.Array[Any], slices: tuple[slice, ...], position: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Position of a shard in the array's grid, and the part of the data that fills it."""
    units = unit_of_writing(array)
    shard = tuple(
        chosen.start // unit + i for chosen, unit, i in zip(slices, units, position, strict=True)
    )
    part = tuple(slice(i * unit, (i + 1) * unit) for unit, i in zip(units, position, strict=True))
    return shard, part


def region_of_shard(array: zarr.Array[Any], shard: tuple[int, ...]) -> tuple[slice, ...]:
    """What a shard holds of its array, by the shard's position."""
    return tuple(
        slice(i * unit, min((i + 1) * unit, size))
        for i, unit, size in zip(shard, unit_of_writing(array), array.shape, strict=True)
    )
