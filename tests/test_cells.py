"""Choice of cells: classes, draw, splits, order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile import grid
from deepprofile.recipe import Bounds, Split
from deepprofile.stages.cells import select_cells
from deepprofile.store.layout import TILE_COLUMNS, TILE_ROWS

CORNER = (224, 2112)


def stations(*cells: tuple[int, int, str]) -> pd.DataFrame:
    return pd.DataFrame(cells, columns=["row", "column", "cell_class"]).astype(
        {"row": int, "column": int}
    )


def select(station_cells, complete, **options):
    defaults = {"other_cells": 1000, "other_outside": None, "split": Split(), "seed": 1}
    return select_cells(station_cells, complete, CORNER, **{**defaults, **options})


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), n_other=st.integers(0, 120), train=st.floats(0, 0.6))
def test_every_cell_once_splits_by_share_and_tiles_together(seed, n_other, train):
    complete = np.random.default_rng(seed).random((112, 128)) < 0.02
    rows, columns = (axis + start for axis, start in zip(np.nonzero(complete), CORNER, strict=True))
    known = stations(*zip(rows[:6], columns[:6], ["core"] * 3 + ["extra"] * 3, strict=True))
    cells = select(
        known,
        complete,
        other_cells=n_other,
        split=Split(train=train, candidate=0.3),
        seed=seed,
        allow_core_neighbours=True,  # tests/test_leakage.py is about these
    )
    assert not cells.duplicated(["row", "column"]).any()
    assert complete[cells["row"] - CORNER[0], cells["column"] - CORNER[1]].all()
    free = cells[cells["cell_class"] != "core"]
    assert (cells[cells["cell_class"] == "core"]["split"] == "validation").all()
    assert len(free) == 3 + min(n_other, complete.sum() - 6)
    assert (free["split"] == "train").sum() == round(train * len(free))
    assert (free["split"] == "candidate").sum() == round(0.3 * len(free))
    tiles = list(zip(cells["row"] // TILE_ROWS, cells["column"] // TILE_COLUMNS, strict=True))
    assert len(set(tiles)) == sum(a != b for a, b in zip(tiles, [None, *tiles], strict=False))


def test_the_same_seed_gives_the_same_cells_and_another_gives_others():
    complete = np.ones((112, 128), bool)
    first, again, other = (
        select(stations(), complete, other_cells=50, seed=seed) for seed in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_no_other_cell_is_drawn_inside_the_box():
    complete = np.ones((112, 128), bool)
    middle = float(grid.longitudes()[CORNER[1] + 64])
    box = Bounds(west=middle, south=-90, east=180, north=90)
    cells = select(stations(), complete, other_outside=box)
    assert len(cells)
    assert (grid.longitudes()[cells["column"]] < middle).all()


@pytest.mark.parametrize("place", [(0, 0), (CORNER[0] + 112, CORNER[1]), (CORNER[0], 3855)])
def test_stations_outside_the_region_are_left_out(place):
    known = stations((*place, "core"), (CORNER[0] + 1, CORNER[1] + 1, "extra"))
    cells = select(known, np.ones((112, 128), bool), other_cells=0)
    assert cells[["row", "column"]].values.tolist() == [[CORNER[0] + 1, CORNER[1] + 1]]


@pytest.mark.parametrize("kind", ["unqualified", "incomplete"])
def test_a_station_cell_that_does_not_qualify_is_left_out(kind):
    complete = np.ones((112, 128), bool)
    complete[0, 0] = kind != "incomplete"
    known = stations((*CORNER, "core" if kind == "incomplete" else kind))
    cells = select(known, complete, other_cells=0)
    assert cells.empty
