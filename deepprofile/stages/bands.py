"""Bands of tile rows: what one ingest job reads, so that every granule is opened few times."""

from collections.abc import Iterator

from deepprofile.store.layout import N_TILE_COLUMNS, Region


def bands(region: Region) -> Iterator[Region]:
    """Cut a region into bands of tile rows, none with more tiles than one row of the globe."""
    width = region.tile_columns[1] - region.tile_columns[0]
    height = max(1, N_TILE_COLUMNS // width)
    first, last = region.tile_rows
    for start in range(first, last, height):
        yield Region((start, min(start + height, last)), region.tile_columns)
