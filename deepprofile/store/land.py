"""How much land a region holds, known without any data: for plans.

The counts come from ``land_cells.csv`` beside this module. A cell of the 9 km grid counts as land
where its centre is land in the 1 km mask of global-land-mask, which was made from the GLOBE
elevation model: 825 tiles, 1,665,969 cells. Lakes and Greenland's ice count as land. Antarctica
does not: SMAP's own list of land cells (36 km, 103,902 times 16 cells of 9 km) ends at 55.4 degrees
south. In a real granule of SMAP L4 over North America 2 % more cells
have values than this table counts there. The cubes themselves take their land mask from the
granules.
"""

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepprofile.store.layout import Region

_TABLE = "land_cells.csv"


class LandCount(NamedTuple):
    """How much land a region holds.

    Attributes:
        tiles: tiles with any land.
        cells: land cells.
    """

    tiles: int
    cells: int


def expected_land(region: Region) -> LandCount:
    """Tiles with land and land cells that a region is expected to hold, to within a few percent."""
    cells = land_cells()[slice(*region.tile_rows), slice(*region.tile_columns)]
    return LandCount(int(np.count_nonzero(cells)), int(cells.sum()))


@cache
def land_cells() -> NDArray[np.int64]:
    """Land cells of every tile, (tile rows, tile columns)."""
    text = resources.files("deepprofile.store").joinpath(_TABLE).read_text()
    return np.loadtxt(text.splitlines(), dtype=np.int64, delimiter=",")
