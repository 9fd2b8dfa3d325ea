"""From the names of pieces in the ledger to the shards that they hold, and back."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zarr

from deepprofile.store.layout import TILE_COLUMNS, TILE_ROWS
from deepprofile.store.ledger import OBSOLETE, Commit
from deepprofile.store.shard_grid import Place
from deepprofile.store.template import array_of, dimension_names
from deepprofile.store.writer import Shard, region_of

_TILE = re.compile(r"\btile (\d+) (\d+)\b")
_ROWS = re.compile(r"\brows (\d+)-(\d+)\b")
_BLOCK = re.compile(r"\bblock (\d+)\b")
Spot = tuple[int, int, int | None]
"""Row and column of a tile and a block of days; None where a piece holds all days."""


@dataclass(frozen=True)
class Piece:
    """A piece of the ledger: the stage that writes it and its name."""

    stage: str
    name: str


class Pieces:
    """The pieces of a cube's ledger by where they lie.

    Attributes:
        tiles: tiles that pieces name one by one; their shards are to be there.
    """

    def __init__(self, group: zarr.Group, commits: Iterable[Commit]) -> None:
        """Read the ledger.

        Args:
            group: of the cube.
            commits: the newest first.
        """
        self._group = group
        self._first_block = int(str(group.attrs.get("first_block", 0)))
        self._columns = range(*region_of(group.attrs).tile_columns) if _gridded(group) else range(0)
        self._tile_of_cell = _tiles_of_cells(group)
        self._at: dict[Spot, Piece] = {}
        self._done: set[Piece] = set()
        self.tiles: set[tuple[int, int]] = set()
        for commit in reversed(list(commits)):
            if not commit.failed_run:  # what it names may never have been, and need not be, there
                self._add(commit.metadata)

    def of(self, shard: Shard) -> Piece | None:
        """The piece that a shard belongs to, as far as the ledger knows it."""
        tile, block = self.tile_of(shard), self.block_of(shard)
        if tile is None:
            return None
        return self._at.get((*tile, block)) or self._at.get((*tile, None))

    @property
    def since(self) -> int:
        """Position in time of the first shards that any piece holds.

        Where the period of a recipe begins later than the time axis, nothing is written before.
        """
        blocks = [block for *_, block in self._at if block is not None]
        return max(0, min(blocks, default=0) - self._first_block)

    def is_done(self, piece: Piece | None) -> bool:
        """Whether the ledger says that a piece is done and was not withdrawn since."""
        return piece in self._done

    def tile_of(self, shard: Shard) -> tuple[int, int] | None:
        """Row and column of the tile in which a shard lies."""
        name, position = shard
        at = dict(zip(dimension_names(array_of(self._group, name)), position, strict=True))
        if "cell" in at:
            return self._tile_of_cell[at["cell"]]
        if not _gridded(self._group) or "y" not in at:
            return None
        region = region_of(self._group.attrs)
        return region.tile_rows[0] + at["y"], region.tile_columns[0] + at["x"]

    def block_of(self, shard: Shard) -> int | None:
        """The block of days that a shard holds; None where it holds others or no days."""
        name, position = shard
        dims = dimension_names(array_of(self._group, name))
        if "time" not in dims or "cell" in dims:
            return None
        return self._first_block + position[dims.index("time")]

    def places(self) -> set[Place]:
        """Places of the tiles that pieces name one by one."""
        if not _gridded(self._group):
            return set()
        region = region_of(self._group.attrs)
        return {
            (row - region.tile_rows[0], column - region.tile_columns[0])
            for row, column in self.tiles
            if row in range(*region.tile_rows) and column in range(*region.tile_columns)
        }

    def where(self, shard: Shard) -> str:
        """Array, position, tile and block of a shard, for people."""
        name, position = shard
        tile, block = self.tile_of(shard), self.block_of(shard)
        text = f"{name} shard {'/'.join(map(str, position))}"
        text += f", tile {tile[0]} {tile[1]}" if tile is not None else ""
        return text + (f", block {block}" if block is not None else "")

    def _add(self, metadata: Mapping[str, Any]) -> None:
        stage = str(metadata.get("stage", ""))
        for name in metadata.get("withdrawn", ()):
            self._done.discard(Piece(stage, name))
            self._locate(Piece(stage, name))
        for failure in metadata.get("failed", ()):
            for name in failure.get("entries", ()):
                self._locate(Piece(stage, name))
        for name in metadata.get("done", ()):
            self._done.add(Piece(stage, name))
            self._locate(Piece(stage, name))

    def _locate(self, piece: Piece) -> None:
        block = _BLOCK.search(piece.name)
        index = int(block[1]) if block else None
        tile, rows = _TILE.search(piece.name), _ROWS.search(piece.name)
        if tile:
            row, column = int(tile[1]), int(tile[2])
            self._at[row, column, index] = piece
            self.tiles.add((row, column))
        elif rows:
            for row in range(int(rows[1]), int(rows[2])):
                self._at.update({(row, column, index): piece for column in self._columns})


def count_pieces(commits: Sequence[Commit]) -> dict[str, tuple[int, int]]:
    """Of each stage, the pieces that are done and all that it knows; commits newest first."""
    done: dict[str, set[str]] = {}
    known: dict[str, set[str]] = {}
    for commit in reversed(commits):
        stage = str(commit.metadata.get("stage", ""))
        names = {key: set(commit.metadata.get(key, ())) for key in ("done", "withdrawn")}
        failed = {
            name
            for failure in commit.metadata.get("failed", ())
            for name in failure.get("entries", [failure["job"]])
        }
        held = done.setdefault(stage, set())
        held -= names["withdrawn"]
        held |= names["done"]
        known.setdefault(stage, set()).update(names["done"], names["withdrawn"], failed)
        known[stage] -= set(commit.metadata.get(OBSOLETE, ())) - held
    return {stage: (len(done[stage]), len(known[stage])) for stage in sorted(known) if known[stage]}


def _gridded(group: zarr.Group) -> bool:
    return "tile_rows" in group.attrs


def _tiles_of_cells(group: zarr.Group) -> list[tuple[int, int]]:
    """Tile of each cell of a cube of single cells."""
    if _gridded(group) or "row" not in group or "column" not in group:
        return []
    rows = array_of(group, "row")[...] // TILE_ROWS  # type: ignore[operator]
    columns = array_of(group, "column")[...] // TILE_COLUMNS  # type: ignore[operator]
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True)]  # type: ignore[call-overload]
