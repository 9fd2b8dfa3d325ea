"""The plan of the ingest stage: all of the archive, and what a day more takes."""

import numpy as np

from deepprofile.products import PRODUCTS, Product
from deepprofile.recipe import Recipe
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Plan
from deepprofile.stages.extent import land_of
from deepprofile.stages.ingest_jobs import product_template
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS, blocks
from deepprofile.store.template import ArraySpec

CHUNK_OVERHEAD = 36
"""Bytes of a compressed chunk beside its values, which at worst stay as they are: header,
checksum and entry in the index of the shard."""
REFERENCE = 128
"""Most bytes that a commit notes of a shard: each commit lists all shards of the arrays it
writes."""
COMMIT = 100_000
"""Most bytes of a commit beside shards and their list."""


def plan(recipe: Recipe) -> Plan:
    """Reads every step of every field in bands with land; writes whole blocks of their tiles that
    have some.
    """
    region, land = recipe.tiles, land_of(recipe)
    n_blocks = len(list(blocks(recipe.period.days.start, recipe.period.days.stop)))
    products = [PRODUCTS[name] for name in recipe.products]
    with_land = [band for band in bands(region) if land_of(recipe, band).tiles]
    in_bands = sum(band.shape[0] * band.shape[1] for band in with_land)
    cells = land.cells if recipe.synthetic else in_bands
    day = sum(len(p.fields) * p.steps_per_day for p in products) * cells * 4
    in_tiles = n_blocks * BLOCK_DAYS * land.tiles * TILE_CELLS
    written = sum(4 * len(product.fields) + 1 for product in products) * in_tiles
    band = next(bands(region))
    most = max(len(product.fields) for product in products)
    memory = BLOCK_DAYS * most * band.shape[0] * band.shape[1] * 4 * 2
    read = day * n_blocks * BLOCK_DAYS
    arrays = [array for product in products for array in _arrays(product, recipe)]
    return Plan(
        n_blocks * len(with_land) * len(products),
        read,
        written,
        memory,
        "granules on the 9 km grid; the time to decode them is not measured",
        {"decode": read, "write": written},
        append_read=day + land.tiles * sum(array.chunk_bytes for array in arrays),
        append_written=sum(_shard_bytes(array, land.tiles, n_blocks) for array in arrays)
        + COMMIT * len(products),
    )


def _arrays(product: Product, recipe: Recipe) -> tuple[ArraySpec, ...]:
    return product_template(product, recipe.tiles).arrays


def _shard_bytes(array: ArraySpec, tiles: int, n_blocks: int) -> int:
    """Most bytes of the last shard of every tile, and of the list of all shards of the array."""
    n_chunks = int(np.prod(array.chunks)) // int(np.prod(array.inner or array.chunks))
    shard = array.chunk_bytes + n_chunks * CHUNK_OVERHEAD
    return tiles * (shard + n_blocks * REFERENCE)
