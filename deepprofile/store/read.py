"""Reading a cube shard by shard: tiles of consecutive days, and series of single cells."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from deepprofile.profile import Layer
from deepprofile.store.cube import open_cube
from deepprofile.store.layout import BLOCK_DAYS, TILE_COLUMNS, TILE_ROWS, Region, Tile
from deepprofile.store.writer import IN_FLIGHT, region_of

Cube = str | Path | xr.Dataset
"""A cube's URL, or the cube opened whole (inside a job with ``chunks=None``)."""


def read_tile(
    cube: Cube, array: str, tile: Tile, days: tuple[int, int] | None = None
) -> NDArray[Any]:
    """Values of one tile, each shard read once into an array made beforehand.

    Args:
        cube: URL or dataset.
        array: name of the array.
        tile: tile inside the cube's region.
        days: first day and the one after the last, counted from the cube's first day; None for
            all days.

    Returns:
        Shape (time, …, rows of the tile, columns of the tile), in the order of the array.

    Raises:
        ValueError: if the tile or the days lie outside the cube.
    """
    variable, region = _opened(cube, array)
    if tile not in region:
        raise ValueError(f"{tile} lies outside the cube's {region}")
    rows, columns = region.local(tile)
    selected = variable.isel(y=rows, x=columns)
    if "time" not in variable.dims:
        return np.asarray(selected.values)
    start, stop = _checked_days(days, variable.sizes["time"])
    parts = list(_block_parts(start, stop))
    if len(parts) == 1:
        return np.asarray(selected.isel(time=parts[0]).values)
    shape = (stop - start, *selected.shape[1:])
    values = np.empty(shape, dtype=variable.dtype)

    def read(part: slice) -> None:
        values[part.start - start : part.stop - start] = selected.isel(time=part).values

    with ThreadPoolExecutor(min(len(parts), IN_FLIGHT)) as pool:
        list(pool.map(read, parts))
    return values


def read_cells(
    cube: Cube,
    array: str,
    rows: ArrayLike,
    columns: ArrayLike,
    days: tuple[int, int] | None = None,
) -> NDArray[Any]:
    """Values of single cells, each shard that holds one of them read once.

    Args:
        cube: URL or dataset.
        array: name of the array.
        rows: global rows of the cells, shape (cells,).
        columns: global columns, shape (cells,).
        days: first day and the one after the last, counted from the cube's first day; None for
            all days.

    Returns:
        Shape (cells, …): the other dimensions in the order of the array.

    Raises:
        ValueError: if a cell or the days lie outside the cube.
    """
    variable, region = _opened(cube, array)
    row, column = np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)
    _check_cells(region, row, column)
    timed = "time" in variable.dims
    start, stop = _checked_days(days, variable.sizes["time"]) if timed else (0, 0)
    leading = (stop - start, *variable.shape[1:-2]) if timed else variable.shape[:-2]
    values = np.empty((row.size, *leading), dtype=variable.dtype)
    if 0 in values.shape:
        return values

    def read(here: NDArray[np.int64], tile: Tile, part: slice | None) -> None:
        y, x = row[here] - tile.rows.start, column[here] - tile.columns.start
        local_rows, local_columns = region.local(tile)
        shard = variable.isel(y=local_rows, x=local_columns)
        if part is None:
            values[here] = np.moveaxis(shard.values[..., y, x], -1, 0)
        else:
            into = slice(part.start - start, part.stop - start)
            values[here, into] = np.moveaxis(shard.isel(time=part).values[..., y, x], -1, 0)

    parts = list(_block_parts(start, stop)) if timed else [None]
    shards = [(here, tile, part) for tile, here in _by_tile(row, column) for part in parts]
    with ThreadPoolExecutor(min(len(shards), IN_FLIGHT)) as pool:
        for done in [pool.submit(read, *shard) for shard in shards]:
            done.result()
    return values


def _by_tile(
    row: NDArray[np.int64], column: NDArray[np.int64]
) -> Iterator[tuple[Tile, NDArray[np.int64]]]:
    """Tiles that hold cells, each with the positions of its cells."""
    tile_row, tile_column = row // TILE_ROWS, column // TILE_COLUMNS
    for pair in np.unique(np.stack([tile_row, tile_column], axis=1), axis=0):
        tile = Tile(int(pair[0]), int(pair[1]))
        yield tile, np.flatnonzero((tile_row == tile.row) & (tile_column == tile.column))


def layers_of(dataset: xr.Dataset) -> list[Layer]:
    """Layers of a cube, from its coordinates ``product``, ``top`` and ``bottom``."""
    bounds = (dataset[name].values for name in ("product", "top", "bottom"))
    return [
        Layer(str(product), float(top), float(bottom))
        for product, top, bottom in zip(*bounds, strict=True)
    ]


def _opened(cube: Cube, array: str) -> tuple[xr.DataArray, Region]:
    dataset = cube if isinstance(cube, xr.Dataset) else open_cube(cube, chunks=None)
    region = region_of(dataset.attrs)
    if array not in dataset.data_vars:
        known = ", ".join(map(str, dataset.data_vars))
        raise ValueError(f"the cube has no array {array!r}; it has {known}")
    variable = dataset[array]
    if variable.shape[-2:] != region.shape:
        raise ValueError(
            f"{array} has {variable.shape[-2:]} cells, its cube {region.shape}: expected the cube "
            "as open_cube returns it, not a part of it"
        )
    return variable, region


def _block_parts(start: int, stop: int) -> Iterator[slice]:
    """Days of each block between two days, counted from the cube's first day."""
    for first in range(start - start % BLOCK_DAYS, stop, BLOCK_DAYS):
        yield slice(max(first, start), min(first + BLOCK_DAYS, stop))


def _checked_days(days: tuple[int, int] | None, n_days: int) -> tuple[int, int]:
    start, stop = days or (0, n_days)
    if not 0 <= start <= stop <= n_days:
        raise ValueError(f"days {start} to {stop} lie outside the cube's {n_days} days")
    return start, stop


def _check_cells(region: Region, row: NDArray[np.int64], column: NDArray[np.int64]) -> None:
    if row.ndim != 1 or row.shape != column.shape:
        raise ValueError(
            f"rows have shape {row.shape}, columns {column.shape}: expected (cells,) for both"
        )
    inside = (row >= region.rows.start) & (row < region.rows.stop)
    inside &= (column >= region.columns.start) & (column < region.columns.stop)
    if not inside.all():
        first = int(np.flatnonzero(~inside)[0])
        raise ValueError(
            f"{int((~inside).sum())} of {row.size} cells lie outside the cube's {region}, such as "
            f"row {row[first]}, column {column[first]}"
        )
