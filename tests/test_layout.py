from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepprofile import grid
from deepprofile.store.layout import (
    BLOCK_DAYS,
    EPOCH,
    N_TILE_COLUMNS,
    N_TILE_ROWS,
    Block,
    Region,
    Tile,
    blocks,
    day_at,
    day_index,
)


def test_every_cell_of_the_globe_lies_in_exactly_one_tile():
    count = np.zeros((grid.N_ROWS, grid.N_COLUMNS), dtype=np.int8)
    for tile in Region.globe().tiles():
        count[tile.rows, tile.columns] += 1
    assert (count == 1).all()


@st.composite
def regions(draw):
    top = draw(st.integers(0, N_TILE_ROWS - 1))
    left = draw(st.integers(0, N_TILE_COLUMNS - 1))
    bottom = draw(st.integers(top + 1, min(top + 4, N_TILE_ROWS)))
    right = draw(st.integers(left + 1, min(left + 4, N_TILE_COLUMNS)))
    return Region((top, bottom), (left, right))


@given(regions())
def test_tiles_of_a_region_cover_its_own_array_once(region):
    count = np.zeros(region.shape, dtype=np.int8)
    for tile in region.tiles():
        rows, columns = region.local(tile)
        count[rows, columns] += 1
        assert region.rows.start + rows.start == tile.rows.start
        assert region.columns.start + columns.stop == tile.columns.stop
    assert (count == 1).all()


def test_bounds_of_the_earth_give_the_globe():
    assert Region.from_bounds(-180, -90, 180, 90) == Region.globe()


@given(st.floats(-180, 179.9), st.floats(0.01, 300), st.floats(-84.5, 84.4), st.floats(0.01, 100))
def test_a_region_holds_the_cells_of_its_box(west, width, south, height):
    east, north = min(west + width, 180.0), min(south + height, 90.0)
    region = Region.from_bounds(west, south, east, north)
    inside_x = (grid.longitudes() >= west) & (grid.longitudes() <= east)
    inside_y = (grid.latitudes() >= south) & (grid.latitudes() <= north)
    columns, rows = np.flatnonzero(inside_x), np.flatnonzero(inside_y)
    assert ((columns >= region.columns.start) & (columns < region.columns.stop)).all()
    assert ((rows >= region.rows.start) & (rows < region.rows.stop)).all()


@pytest.mark.parametrize(
    "box",
    [(10, 0, 10, 5), (170, 0, -170, 5), (0, 5, 10, -5), (0, 0, 190, 5), (0, 86, 10, 89)],
    ids=["empty", "date line", "upside down", "beyond 180", "poleward"],
)
def test_boxes_that_are_none_are_refused(box):
    with pytest.raises(ValueError, match="box"):
        Region.from_bounds(*box)


@pytest.mark.parametrize("rows", [(3, 3), (-1, 2), (0, N_TILE_ROWS + 1)])
def test_regions_outside_the_grid_are_refused(rows):
    with pytest.raises(ValueError, match="tile rows"):
        Region(rows, (0, 1))


@given(st.integers(0, 5000), st.integers(1, 200))
def test_blocks_cover_the_days_and_no_block_in_vain(start, length):
    found = list(blocks(start, start + length))
    assert found[0].days.start <= start < found[0].days.stop
    assert found[-1].days.start < start + length <= found[-1].days.stop
    assert all(a.days.stop == b.days.start for a, b in pairwise(found))


def test_days_are_counted_from_the_epoch():
    assert day_index(EPOCH) == 0
    assert day_at(Block(1).days.start).isoformat() == "2015-05-02"
    assert Block(2).days == slice(2 * BLOCK_DAYS, 3 * BLOCK_DAYS)


def test_the_last_column_of_tiles_is_ragged():
    assert Tile(0, N_TILE_COLUMNS - 1).columns == slice(3840, 3856)
