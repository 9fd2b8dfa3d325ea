"""How the grid and the days are cut: tiles of cells, blocks of days, regions of whole tiles.

One shard of a cube is one block of one tile; a shard is the unit of writing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from deepprofile import grid

EPOCH = date(2015, 3, 31)
"""First day of block 0, the first day of SMAP L4."""
BLOCK_DAYS = 32
TILE_ROWS = 56
TILE_COLUMNS = 64
TILE_CELLS = TILE_ROWS * TILE_COLUMNS
N_TILE_ROWS = -(-grid.N_ROWS // TILE_ROWS)
N_TILE_COLUMNS = -(-grid.N_COLUMNS // TILE_COLUMNS)


@dataclass(frozen=True, order=True)
class Tile:
    """One tile of 56 x 64 cells (the last column of tiles is narrower).

    Attributes:
        row: tile row, 0 (north) to 28.
        column: tile column, 0 (west) to 60.
    """

    row: int
    column: int

    @property
    def rows(self) -> slice:
        """Grid rows of the tile."""
        start = self.row * TILE_ROWS
        return slice(start, min(start + TILE_ROWS, grid.N_ROWS))

    @property
    def columns(self) -> slice:
        """Grid columns of the tile."""
        start = self.column * TILE_COLUMNS
        return slice(start, min(start + TILE_COLUMNS, grid.N_COLUMNS))


@dataclass(frozen=True)
class Region:
    """A rectangle of whole tiles: what a cube covers.

    Attributes:
        tile_rows: first tile row and the one after the last.
        tile_columns: first tile column and the one after the last.

    Raises:
        ValueError: if the rectangle is empty or reaches beyond the grid.
    """

    tile_rows: tuple[int, int]
    tile_columns: tuple[int, int]

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name, (start, stop), limit in (
            ("rows", self.tile_rows, N_TILE_ROWS),
            ("columns", self.tile_columns, N_TILE_COLUMNS),
        ):
            if not 0 <= start < stop <= limit:
                raise ValueError(
                    f"tile {name} {start} to {stop} are not a range inside 0 to {limit}"
                )

    @classmethod
    def globe(cls) -> "Region":
        """The whole grid."""
        return cls((0, N_TILE_ROWS), (0, N_TILE_COLUMNS))

    @classmethod
    def from_bounds(cls, west: float, south: float, east: float, north: float) -> "Region":
        """Smallest region of whole tiles that holds a box of degrees.

        Parts of the box that reach beyond the outermost cell centres are cut off.

        Raises:
            ValueError: if the box is empty, crosses the date line or lies poleward of the grid.
        """
        if not (-180.0 <= west < east <= 180.0 and -90.0 <= south < north <= 90.0):
            raise ValueError(
                f"box west {west}, south {south}, east {east}, north {north} is not valid: "
                "expected -180 <= west < east <= 180 and -90 <= south < north <= 90"
            )
        latitudes, longitudes = grid.latitudes(), grid.longitudes()
        if south > latitudes[0] or north < latitudes[-1]:
            raise ValueError(
                f"box from {south} to {north} degrees north lies poleward of the grid, which "
                f"ends at {latitudes[0]:.2f} degrees north and south"
            )
        box_rows, box_columns = grid.cell_index(
            np.clip([west, east], longitudes[0], longitudes[-1]),
            np.clip([north, south], latitudes[-1], latitudes[0]),
        )
        return cls(
            (int(box_rows[0]) // TILE_ROWS, int(box_rows[1]) // TILE_ROWS + 1),
            (int(box_columns[0]) // TILE_COLUMNS, int(box_columns[1]) // TILE_COLUMNS + 1),
        )

    @property
    def rows(self) -> slice:
        """Grid rows of the region."""
        first, last = self.tile_rows[0], self.tile_rows[1] - 1
        return slice(Tile(first, 0).rows.start, Tile(last, 0).rows.stop)

    @property
    def columns(self) -> slice:
        """Grid columns of the region."""
        first, last = self.tile_columns[0], self.tile_columns[1] - 1
        return slice(Tile(0, first).columns.start, Tile(0, last).columns.stop)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns of cells."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def tiles(self) -> Iterator[Tile]:
        """All tiles, row by row."""
        for row in range(*self.tile_rows):
            for column in range(*self.tile_columns):
                yield Tile(row, column)

    def __contains__(self, tile: Tile) -> bool:
        """Whether the region holds a tile."""
        return tile.row in range(*self.tile_rows) and tile.column in range(*self.tile_columns)

    def land_tiles(self, land: NDArray[np.bool_]) -> list[Tile]:
        """Tiles with any land; ``land`` has the shape of the region."""
        return [tile for tile in self.tiles() if land[self.local(tile)].any()]

    def local(self, tile: Tile) -> tuple[slice, slice]:
        """Rows and columns of ``tile`` counted from the region's own corner."""
        top, left = self.rows.start, self.columns.start
        return (
            slice(tile.rows.start - top, tile.rows.stop - top),
            slice(tile.columns.start - left, tile.columns.stop - left),
        )


def day_index(day: date) -> int:
    """Days from the epoch to ``day``."""
    return (day - EPOCH).days


def day_at(index: int) -> date:
    """The day that lies ``index`` days after the epoch."""
    return EPOCH + timedelta(days=index)


@dataclass(frozen=True, order=True)
class Block:
    """One block of 32 days, counted from the epoch."""

    index: int

    @property
    def days(self) -> slice:
        """Day indices of the block."""
        return slice(self.index * BLOCK_DAYS, (self.index + 1) * BLOCK_DAYS)


def blocks(start: int, stop: int) -> Iterator[Block]:
    """Blocks that hold the day indices ``start`` (included) to ``stop`` (excluded)."""
    for index in range(start // BLOCK_DAYS, -(-stop // BLOCK_DAYS)):
        yield Block(index)
