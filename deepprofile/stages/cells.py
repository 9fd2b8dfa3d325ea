"""Which cells are used: core and extra ones with stations, others drawn; and their split."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.recipe import Bounds, Split
from deepprofile.store.layout import TILE_COLUMNS, TILE_ROWS

CORE, EXTRA, OTHER = "core", "extra", "other"
TRAIN, CANDIDATE, VALIDATION = "train", "candidate", "validation"


def select_cells(
    station_cells: pd.DataFrame,
    complete: NDArray[np.bool_],
    corner: tuple[int, int],
    *,
    other_cells: int,
    other_outside: Bounds | None,
    split: Split,
    seed: int,
    allow_core_neighbours: bool = False,
) -> pd.DataFrame:
    """Table of the chosen cells, ordered by tile.

    Soil moisture in neighbouring cells is nearly the same: a core cell would be no independent
    check of a network that learned next to it. So extra and other cells that are one of the eight
    around a core cell validate too, unless this is allowed. The numbers that train and that are
    candidates stay the shares of all extra and other cells, as long as there are enough; then
    candidates are missing first.

    Args:
        station_cells: columns ``row``, ``column``, ``cell_class`` (core, extra or something
            else, which is left out), one line a cell; those outside the region are left out, but
            no neighbour of a core cell among them trains either.
        complete: land cells with all products, shape of the region.
        corner: global row and column of the region's corner.
        other_cells: number of cells without a chosen station that are drawn.
        other_outside: box from which none of them is drawn.
        split: shares of extra and other cells; core cells always validate.
        seed: of the draw and the split.
        allow_core_neighbours: whether neighbours of core cells may train.

    Returns:
        Columns ``row``, ``column``, ``cell_class``, ``split`` ("train", "candidate",
        "validation").
    """
    generator = np.random.default_rng(seed)
    chosen = station_cells[station_cells["cell_class"].isin([CORE, EXTRA])]
    chosen = chosen[_held(chosen, complete, corner)][["row", "column", "cell_class"]]
    others = _draw(generator, chosen, complete, corner, other_cells, other_outside)
    cells = pd.concat([chosen, others], ignore_index=True)
    cells["split"] = VALIDATION
    free = np.flatnonzero(cells["cell_class"] != CORE)
    order = generator.permutation(free)
    if not allow_core_neighbours:
        order = order[~beside_core(cells.iloc[order], station_cells)]
    n_train = round(split.train * free.size)
    n_candidate = round(split.candidate * free.size)
    cells.loc[order[:n_train], "split"] = TRAIN
    cells.loc[order[n_train : n_train + n_candidate], "split"] = CANDIDATE
    return _by_tile(cells)


def beside_core(cells: pd.DataFrame, station_cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Which cells are a neighbour of a core cell and no core cell themselves, (cells,)."""
    core = station_cells[station_cells["cell_class"] == CORE]
    return near_any(cells, core) & (cells["cell_class"] != CORE).to_numpy()


def near_any(cells: pd.DataFrame, others: pd.DataFrame) -> NDArray[np.bool_]:
    """Which cells are, or touch by a side or a corner, one of some others.

    The grid is closed around the globe: its first and last column are neighbours.

    Args:
        cells: columns ``row``, ``column``.
        others: the same.

    Returns:
        (cells,).
    """
    row, column = others["row"].to_numpy(np.int64), others["column"].to_numpy(np.int64)
    steps = np.array([-1, 0, 1])
    around = np.stack(
        np.broadcast_arrays(
            row[:, None, None] + steps[:, None], (column[:, None, None] + steps) % grid.N_COLUMNS
        )
    ).reshape(2, -1)
    place = cells["row"].to_numpy(np.int64), cells["column"].to_numpy(np.int64)
    found: NDArray[np.bool_] = np.isin(_number(*place), _number(*around))
    return found


def _number(row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each place of the grid, also for the rows beyond its ends."""
    return row * grid.N_COLUMNS + column


def _held(
    cells: pd.DataFrame, complete: NDArray[np.bool_], corner: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which cells lie in the region and have all products; archives may reach beyond the region."""
    row, column = cells["row"].to_numpy() - corner[0], cells["column"].to_numpy() - corner[1]
    inside = (row >= 0) & (row < complete.shape[0]) & (column >= 0) & (column < complete.shape[1])
    held: NDArray[np.bool_] = inside.copy()
    held[inside] = complete[row[inside], column[inside]]
    return held


def _draw(
    generator: np.random.Generator,
    taken: pd.DataFrame,
    complete: NDArray[np.bool_],
    corner: tuple[int, int],
    n_cells: int,
    outside: Bounds | None,
) -> pd.DataFrame:
    free = complete.copy()
    free[taken["row"].to_numpy() - corner[0], taken["column"].to_numpy() - corner[1]] = False
    row, column = (axis + start for axis, start in zip(np.nonzero(free), corner, strict=True))
    if outside is not None:
        allowed = ~outside.holds(grid.longitudes()[column], grid.latitudes()[row])
        row, column = row[allowed], column[allowed]
    drawn = np.sort(generator.permutation(row.size)[:n_cells])
    return pd.DataFrame({"row": row[drawn], "column": column[drawn], "cell_class": OTHER})


def _by_tile(cells: pd.DataFrame) -> pd.DataFrame:
    """One job writes the cells of a tile, so these follow one another."""
    keys = pd.DataFrame(
        {
            "tile_row": cells["row"] // TILE_ROWS,
            "tile_column": cells["column"] // TILE_COLUMNS,
            "row": cells["row"],
            "column": cells["column"],
        }
    )
    return cells.loc[keys.sort_values(list(keys.columns)).index].reset_index(drop=True)
