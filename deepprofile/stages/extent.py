"""How much land a recipe covers, known without data: for plans."""

from deepprofile.recipe import Recipe
from deepprofile.stages.synthesize import earth_config
from deepprofile.store.land import LandCount, expected_land
from deepprofile.store.layout import TILE_COLUMNS, TILE_ROWS, Region


def land_of(recipe: Recipe, part: Region | None = None) -> LandCount:
    """Tiles with land and land cells of a recipe; a demo Earth counts as land all over.

    Args:
        recipe: the recipe.
        part: a part of its region; by default all of it.
    """
    region = part or recipe.tiles
    if recipe.synthetic is None:
        return expected_land(region)
    earth = earth_config(recipe, recipe.synthetic)
    rows = _common(earth.rows, region.rows)
    columns = _common(earth.columns, region.columns)
    tiles = _units(rows, TILE_ROWS) * _units(columns, TILE_COLUMNS)
    return LandCount(tiles, len(rows) * len(columns))


def _common(window: tuple[int, int], region: slice) -> range:
    return range(max(window[0], region.start), min(window[1], region.stop))


def _units(cells: range, size: int) -> int:
    """Tiles that hold some of the consecutive rows or columns."""
    return len({cell // size for cell in cells})
