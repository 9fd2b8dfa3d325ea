"""Forcing, features and a model in a folder, and a job that predicts a tile of them."""

import numpy as np

from deepprofile.benchmark import committed_writer, make_cube
from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.flags import flag_attributes
from deepprofile.model.io import save_model
from deepprofile.model.network import DeepProfile
from deepprofile.products import PRODUCTS
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Paths
from deepprofile.stages.ingest import place_of
from deepprofile.stages.spans import PredictJob
from deepprofile.store import (
    Region,
    Tile,
    coefficients_template,
    smap_l4_template,
    static_template,
)
from deepprofile.store.kinds import FEATURES
from deepprofile.store.layout import BLOCK_DAYS, Block
from deepprofile.store.repository import MAIN, open_group

TILE = Tile(10, 20)
FIELDS = PRODUCTS["smap_l4"].fields
VARIABLES = {field.name: field.units for field in FIELDS if field.layer is None}
N_VARIABLES = len(VARIABLES)


def network_of(variables, features, **options):
    """Settings of a network that knows its variables and features, given with their units."""
    return NetworkConfig(
        n_variables=len(variables),
        n_auxiliary=len(features),
        variables=tuple(variables),
        features=tuple(features),
        variable_units=tuple(variables.values()),
        feature_units=tuple(features.values()),
        **options,
    )


def make_model(window=360):
    model = DeepProfile(
        window=window,
        variables=list(VARIABLES),
        variable_units=list(VARIABLES.values()),
        features=list(FEATURES),
        feature_units=list(FEATURES.values()),
    )
    model.series_minimum -= 0.1  # limits of its own, as after training
    return model.eval()


def write_inputs(root, region, n_blocks, shard_of, land, window=360):
    """Model, forcing and static features.

    ``shard_of(tile, block)`` gives the forcing of a block, ``land`` is (rows, columns) of the
    region. Returns the model's fingerprint.
    """
    paths = Paths(str(root))
    rng = np.random.default_rng(0)

    template = smap_l4_template(region, VARIABLES, PRODUCTS["smap_l4"].layers)
    forcing = make_cube(paths.product("smap_l4"), template, n_blocks * BLOCK_DAYS)
    with committed_writer(forcing) as writer:
        for tile in region.tiles():
            for block in range(n_blocks):
                values = shard_of(tile, block)
                writer.write("forcing", writer.select(tile, Block(block)), values)
    note_ingested(forcing, region, range(n_blocks))
    with committed_writer(make_cube(paths.static, static_template(region), 0)) as writer:
        for tile in region.tiles():
            here = land[region.local(tile)].astype(np.uint8)
            features = rng.random((len(FEATURES), *here.shape), np.float32)
            writer.write("land", writer.select(tile), np.ascontiguousarray(here))
            writer.write("auxiliary", writer.select(tile), features)
    return save_model(make_model(window), paths.model)


def note_ingested(repository, region, blocks):
    """Let the ledger say that some blocks of all bands of a region were ingested."""
    session = repository.writable_session(MAIN)
    done = {place_of(Block(block), band): "first" for block in blocks for band in bands(region)}
    open_group(session.store, "").update_attributes({"note": "ingested"})
    session.commit("ingest", {"stage": "ingest", "done": done})


def predict_job(root, fingerprint, blocks, n_days, segment):
    paths = Paths(str(root))
    return PredictJob(
        tile=TILE,
        blocks=blocks,
        period=(0, n_days),
        model=paths.model,
        model_fingerprint=fingerprint,
        smap_l4=paths.product("smap_l4"),
        static=paths.static,
        max_gap=3,
        device="cpu",
        precision="float32",
        segment=segment,
        fingerprints=("inputs",) * len(blocks),
    )


def output_session(url, blocks, n_days):
    """A session of a new cube for the profiles of the blocks of a tile, up to a day index."""
    region = Region((TILE.row, TILE.row + 1), (TILE.column, TILE.column + 1))
    template = coefficients_template(
        region, flag_attributes=flag_attributes(), first_block=blocks[0]
    )
    repository = make_cube(url, template, n_days - blocks[0] * BLOCK_DAYS)
    return repository.writable_session(MAIN)
