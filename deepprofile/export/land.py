"""Tiles without land: no job is ever scheduled there, so their flags are never written."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepprofile.store import Region, Tile
from deepprofile.store.repository import open_repository

NOT_LAND = "not_land"
"""Meaning of the flag of cells without land."""


def cells_without_land(url: str | Path, snapshot: str, region: Region) -> NDArray[np.bool_]:
    """Cells of the tiles that the cube's ledger lists as tiles without land.

    Cells of other tiles may be sea, too; their own flags say so.

    Args:
        url: the cube.
        snapshot: the newest list up to this snapshot counts, whatever was published later.
        region: what the cube covers.

    Returns:
        A mask with the shape of the region.
    """
    cells = np.zeros(region.shape, bool)
    for tile in _tiles_without_land(url, snapshot):
        cells[region.local(tile)] = True
    return cells


def _tiles_without_land(url: str | Path, snapshot: str) -> list[Tile]:
    commits = open_repository(url).ancestry(snapshot_id=snapshot)
    noted = (commit.metadata.get("without_land") for commit in commits)
    newest: list[str] = next((names for names in noted if names is not None), [])
    return [Tile(*map(int, name.split())) for name in newest]
