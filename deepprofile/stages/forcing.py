"""What the predict stage reads, checked as a whole before any job is made."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.model.compatibility import (
    features_of,
    label_problems,
    labels_of,
    limit_problems,
    setting_problems,
    variables_of,
)
from deepprofile.model.configuration import NetworkConfig
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Context, StageError
from deepprofile.stages.ingest import STAGE as INGEST
from deepprofile.stages.ingest import place_of
from deepprofile.stages.models import refuse_other_model, whole_model
from deepprofile.store import NotACubeError, done_jobs, open_cube, read_tile, region_of
from deepprofile.store.layout import Block, blocks, day_at

MAX_NAMED = 8
"""Problems that an error names."""


def check_inputs(context: Context, description: Mapping[str, Any]) -> None:
    """Stop before any job unless model, forcing, features, history and output fit together.

    Args:
        context: the running recipe.
        description: what the ``model.json`` of the recipe's model says.

    Raises:
        StageError: naming what was found, what was expected and what to do.
        CubeError: if the forcing or the static features are not there.
    """
    paths, fingerprint = context.paths, str(description["fingerprint"])
    config = NetworkConfig.from_dict(description["network"])
    refuse_other_model(paths.coefficients, fingerprint)
    _check_settings(context, config)
    forcing = open_cube(paths.product("smap_l4"), chunks=None)
    static = open_cube(paths.static, chunks=None)
    for url, cube in ((paths.product("smap_l4"), forcing), (paths.static, static)):
        _check_region(context, url, cube)
    _check_labels(context, config, forcing, static)
    held = _held_days(context, forcing)
    _check_history(context, config.window, held, static["land"].values == 1)
    _check_end(context, held)
    _check_features(context, static)
    _check_limits(context, fingerprint, _probe(context, forcing, static, held))


def _check_settings(context: Context, config: NetworkConfig) -> None:
    training = context.recipe.training
    problems = setting_problems(
        config, window=training.window, n_coefficients=training.n_coefficients
    )
    _refuse(
        f"the model in {context.paths.model} is not the one that training in the recipe describes",
        problems,
        "Set training in the recipe to the model's values, or run the stage train.",
    )


def _check_region(context: Context, url: str, cube: xr.Dataset) -> None:
    found, expected = region_of(cube.attrs), context.recipe.tiles
    if found != expected:
        raise StageError(
            f"{url} covers tile rows {found.tile_rows} and columns {found.tile_columns}: the "
            f"recipe's region has {expected.tile_rows} and {expected.tile_columns}. Give the "
            "recipe the region of its cubes, or another root."
        )


def _check_labels(
    context: Context, config: NetworkConfig, forcing: xr.Dataset, static: xr.Dataset
) -> None:
    paths = context.paths
    for url, array, dim, expected in (
        (paths.product("smap_l4"), forcing["forcing"], "variable", variables_of(config)),
        (paths.static, static["auxiliary"], "feature", features_of(config)),
    ):
        _refuse(
            f"the model in {paths.model} does not fit {array.name} of {url}",
            label_problems(dim, labels_of(array, dim), expected),
            "Predict with a model that was trained on such cubes (run the stage train), or put "
            "the cube there that this model was trained on.",
        )


def _held_days(context: Context, forcing: xr.Dataset) -> slice:
    """Day indices of the period of which the cube holds forcing."""
    period = context.recipe.period.days
    return slice(period.start, max(period.start, min(period.stop, forcing.sizes["time"])))


def _check_history(context: Context, window: int, held: slice, land: NDArray[np.bool_]) -> None:
    """Stop unless a window of days was ingested; say which blocks of forcing were not."""
    url, period = context.paths.product("smap_l4"), context.recipe.period
    tiles = context.recipe.tiles.land_tiles(land)
    with_land = [b for b in bands(context.recipe.tiles) if any(tile in b for tile in tiles)]
    needed, ingested = list(blocks(held.start, held.stop)), done_jobs(url, INGEST)
    places = [[(place_of(block, band), block) for block in needed] for band in with_land]
    missing = [name for band in places for name, _ in band if name not in ingested]
    named = ", ".join(missing[:MAX_NAMED]) + (" and more" if len(missing) > MAX_NAMED else "")
    there = ([block for name, block in band if name in ingested] for band in places)
    n_days = max((sum(_n_days(block, held) for block in band) for band in there), default=0)
    if n_days < window:
        without = f" ({named} not ingested)" if missing else ""
        raise StageError(
            f"not enough history: {url} holds {n_days} days of the period {period.start} to "
            f"{period.end}{without}, but a profile needs {window} days of forcing. Run the stage "
            "ingest over the whole period, or let period in the recipe begin earlier."
        )
    if missing:
        context.console.print(
            f"  [yellow]forcing not ingested[/yellow], missing in its windows: {named}. The stage "
            "ingest repeats what failed.",
            highlight=False,
        )


def _n_days(block: Block, held: slice) -> int:
    return int(min(block.days.stop, held.stop) - max(block.days.start, held.start))


def _check_end(context: Context, held: slice) -> None:
    """Stop if the cube of profiles goes on after the last day that there is to predict: its last
    blocks could not be written whole.
    """
    url, period = context.paths.coefficients, context.recipe.period
    try:
        cube = open_cube(url, chunks=None)
    except NotACubeError:
        return
    if "time" not in cube.sizes or not cube.sizes["time"]:
        return
    there, last = cube["time"].values[-1].astype("datetime64[D]").item(), day_at(held.stop - 1)
    if there > last:
        raise StageError(
            f"{url} holds profiles up to {there}, but the period of the recipe ends on "
            f"{period.end} and its forcing on {last}. A cube does not become shorter: let "
            f"period.end be {there} or later, with forcing up to then (stage ingest), give the "
            "recipe another root, or remove that cube."
        )


def _check_features(context: Context, static: xr.Dataset) -> None:
    """Stop at land cells without all features, unless the recipe allows them."""
    land = static["land"].values == 1
    missing = land & ~np.isfinite(static["auxiliary"].values)  # feature, y, x
    without = missing.any(axis=0)
    if not without.any() or context.recipe.predict.allow_missing_features:
        return
    y, x = (int(axis[0]) for axis in np.nonzero(without))
    region = region_of(static.attrs)
    counts = ", ".join(
        f"{name} in {int(count)}"
        for name, count in zip(static["feature"].values, missing.sum(axis=(1, 2)), strict=True)
        if count
    )
    raise StageError(
        f"{context.paths.static}: {int(without.sum())} of {int(land.sum())} land cells have not "
        f"all auxiliary features ({counts} cells), such as row {region.rows.start + y}, column "
        f"{region.columns.start + x} at latitude {float(static['latitude'][y]):.3f}, longitude "
        f"{float(static['longitude'][x]):.3f}. Add an elevation model that covers them to "
        "terrain.urls and run the stage ingest, or set predict.allow_missing_features: true to "
        "leave these cells without profiles (flag missing_features)."
    )


def _check_limits(context: Context, fingerprint: str, probe: NDArray[np.float32]) -> None:
    _refuse(
        f"the normalisation of the model in {context.paths.model} does not fit the forcing in "
        f"{context.paths.product('smap_l4')}",
        limit_problems(whole_model(context.paths.model, fingerprint), probe),
        "The usual cause is forcing in other units than in training (°C for K, hPa for Pa) or a "
        "model of other data. Make the cube anew in the model's units, or train on this one.",
    )


def _probe(
    context: Context, forcing: xr.Dataset, static: xr.Dataset, held: slice
) -> NDArray[np.float32]:
    """Forcing (n, variables) of the tile with most land in the last block that has values."""
    region, land = region_of(static.attrs), static["land"].values == 1
    tile = max(region.tiles(), key=lambda tile: int(land[region.local(tile)].sum()))
    here = land[region.local(tile)]
    for block in reversed(list(blocks(held.start, held.stop))):
        days = max(block.days.start, held.start), min(block.days.stop, held.stop)
        values = read_tile(forcing, "forcing", tile, days)
        cells = np.moveaxis(values, 1, -1)[:, here]  # days, cells, variables
        if np.isfinite(cells).any():
            return cells.reshape(-1, cells.shape[-1])
    raise StageError(
        f"{context.paths.product('smap_l4')}: no value of forcing in tile {tile.row} "
        f"{tile.column} on any day from {day_at(held.start)} to {day_at(held.stop - 1)}. "
        "`deepprofile inspect` shows holes and granules that were set aside; run the stage ingest."
    )


def _refuse(what: str, problems: list[str], advice: str) -> None:
    if problems:
        named = "\n".join(f"  {problem}" for problem in problems[:MAX_NAMED])
        more = f"\n  and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else ""
        raise StageError(f"{what}:\n{named}{more}\n{advice}")
