"""Land counts for plans: totals, known places, sums."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepprofile import grid
from deepprofile.store.land import expected_land
from deepprofile.store.layout import (
    N_TILE_COLUMNS,
    N_TILE_ROWS,
    TILE_COLUMNS,
    TILE_ROWS,
    Region,
    Tile,
)


def at(longitude, latitude):
    row, column = grid.cell_index(longitude, latitude)
    tile = Tile(int(row) // TILE_ROWS, int(column) // TILE_COLUMNS)
    return expected_land(Region((tile.row, tile.row + 1), (tile.column, tile.column + 1)))


def test_the_globe_has_the_land_area_of_the_earth_without_antarctica():
    land = expected_land(Region.globe())
    area = land.cells * grid.CELL_SIZE**2 / 1e12  # the grid is equal-area; million km2
    assert area == pytest.approx(148.9 - 14.0, rel=0.02)  # CIA World Factbook: land, Antarctica
    assert 800 < land.tiles < 850


def test_a_real_granule_has_values_where_land_is_expected(real_data):
    with h5py.File(real_data("smap_l4/SMAP_L4_SM_aup_input.h5")) as file:
        values, y = file["Analysis_Data/sm_profile_analysis"][:], file["y"][:]
        left = int(file["cell_column"][0, 0])
    top = int(np.abs(grid.y_centers() - y[0]).argmin())
    (height, width), found, expected = values.shape, 0, 0
    for tile in Region.globe().tiles():
        rows = slice(tile.rows.start - top, tile.rows.stop - top)
        columns = slice(tile.columns.start - left, tile.columns.stop - left)
        if min(rows.start, columns.start) >= 0 and rows.stop <= height and columns.stop <= width:
            found += np.count_nonzero(values[rows, columns] > 0)
            here = Region((tile.row, tile.row + 1), (tile.column, tile.column + 1))
            expected += expected_land(here).cells
    assert found > 200_000
    assert expected == pytest.approx(found, rel=0.03)


@pytest.mark.parametrize(("longitude", "latitude"), [(10, 23), (-60, -5), (100, 62)])
def test_tiles_inside_continents_are_full(longitude, latitude):
    assert at(longitude, latitude) == (1, TILE_ROWS * TILE_COLUMNS)


@pytest.mark.parametrize(("longitude", "latitude"), [(-150, 0), (-30, 30), (90, -30), (0, -80)])
def test_oceans_and_antarctica_are_empty(longitude, latitude):
    assert at(longitude, latitude) == (0, 0)


def test_a_coast_is_in_between():
    assert 0 < at(23, 38).cells < TILE_ROWS * TILE_COLUMNS


def test_no_tile_has_more_land_than_cells():
    for tile in Region.globe().tiles():
        region = Region((tile.row, tile.row + 1), (tile.column, tile.column + 1))
        land = expected_land(region)
        assert land.cells <= region.shape[0] * region.shape[1]
        assert land.tiles == (land.cells > 0)


@given(st.integers(1, N_TILE_ROWS - 1), st.integers(1, N_TILE_COLUMNS - 1))
def test_parts_add_up_to_the_globe(row, column):
    parts = [
        expected_land(Region(rows, columns))
        for rows in ((0, row), (row, N_TILE_ROWS))
        for columns in ((0, column), (column, N_TILE_COLUMNS))
    ]
    assert tuple(map(sum, zip(*parts, strict=True))) == expected_land(Region.globe())
