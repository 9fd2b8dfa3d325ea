"""What the predict stage refuses before any job: each fault in a cube or model of a small world."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from prediction_support import network_of, note_ingested
from rich.console import Console

import deepprofile as dp
from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.network import DeepProfile
from deepprofile.products import PRODUCTS
from deepprofile.recipe import load_recipe
from deepprofile.stages import Context, StageError
from deepprofile.stages.forcing import check_inputs
from deepprofile.stages.models import describe_model
from deepprofile.store import (
    NotACubeError,
    coefficients_template,
    smap_l4_template,
    static_template,
)
from deepprofile.store.repository import MAIN, open_group, open_or_create, open_repository
from deepprofile.store.template import extend

N_DAYS, WINDOW = 50, 40
VARIABLES = {"surface_pressure": "Pa", "surface_temp": "K", "rain": "kg m-2 s-1"}
FEATURES = {"elevation": "m", "slope": "degree"}
LAND = np.s_[10:20, 30:34]
NETWORK = network_of(VARIABLES, FEATURES, window=WINDOW, width=8, head_width=4)
RECIPE = {
    "name": "small",
    "period": {"start": "2015-03-31", "end": "2015-05-19"},
    "region": {"west": 22.7, "south": 40.4, "east": 22.8, "north": 40.5},
    "products": {name: {"url": "nowhere"} for name in PRODUCTS},
    "terrain": {"urls": ["nowhere"]},
    "collocation": {"min_samples": 30},
    "training": {"window": WINDOW},
}


def context_of(folder: Path, **changes) -> Context:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "root": str(folder / "root"), **changes}))
    return Context(load_recipe(path), None, Console(quiet=True))


def check(context: Context) -> None:
    check_inputs(context, describe_model(context.paths.model))


def save(context: Context, config=NETWORK, lowest=(5e4, 200, 0), highest=(11e4, 330, 1e-3)) -> str:
    torch.manual_seed(0)
    model = DeepProfile.from_config(config)
    model.series_minimum.copy_(torch.tensor(lowest))
    model.series_maximum.copy_(torch.tensor(highest))
    return dp.save_model(model, context.paths.model)


def edit(url: str, change, **metadata) -> None:
    """Commit a change of a cube's arrays."""
    session = open_repository(url).writable_session(MAIN)
    change(open_group(session.store, url))
    session.commit("edit", {"stage": "edit", **metadata})


def fill_forcing(group) -> None:
    extend(group, N_DAYS)
    values = np.full((N_DAYS, 3, *group["forcing"].shape[2:]), np.nan, np.float32)
    values[:, :, *LAND] = np.array([95_000, 285, 1e-5]).reshape(3, 1, 1)
    group["forcing"][:] = values


def fill_static(group) -> None:
    land = np.zeros(group["land"].shape, np.uint8)
    land[LAND] = 1
    group["land"][:] = land
    values = np.where(land, np.float32(5), np.float32(np.nan))
    group["auxiliary"][:] = np.stack([values] * len(FEATURES))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Folder with the cubes and the model of a region with one patch of land."""
    folder = tmp_path_factory.mktemp("world")
    context = context_of(folder)
    region, paths = context.recipe.tiles, context.paths
    smap = smap_l4_template(region, VARIABLES, PRODUCTS["smap_l4"].layers)
    for url, template, fill in (
        (paths.product("smap_l4"), smap, fill_forcing),
        (paths.static, static_template(region, FEATURES), fill_static),
    ):
        open_or_create(url, template)
        edit(url, fill)
    note_ingested(open_repository(paths.product("smap_l4")), region, range(2))
    save(context)
    return folder


@pytest.fixture
def context(world, tmp_path) -> Context:
    """A copy of the world that a test may spoil."""
    shutil.copytree(world / "root", tmp_path / "root")
    return context_of(tmp_path)


def network(**changes) -> NetworkConfig:
    return NetworkConfig.from_dict({**NETWORK.to_dict(), **changes})


def test_what_fits_passes(context):
    check(context)
    save(context, network(variables=(), features=(), variable_units=(), feature_units=()))
    check(context)  # a model that knows no names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_variables": 2, "variables": ("a", "b"), "variable_units": ()}, "there are 3 along"),
        (
            {"variables": ("surface_temp", "surface_pressure", "rain"), "variable_units": ()},
            "variable number 0 is 'surface_pressure': .* 'surface_temp' there\n.*number 1",
        ),
        (
            {"variable_units": ("hPa", "K", "kg m-2 s-1")},
            r"number 0 \(surface_pressure\) is in 'Pa': the model was trained with 'hPa'",
        ),
        ({"features": ("elevation", "aspect")}, "feature number 1 is 'slope': .* 'aspect'"),
        ({"feature_units": ("km", "degree")}, r"\(elevation\) is in 'm': .* 'km'"),
        ({"window": 80}, "model has window 80: asked for is 40"),
        ({"n_coefficients": 4}, "n_coefficients 4: asked for is 10"),
    ],
)
def test_another_network_is_named(context, changes, message):
    size = changes.get("n_variables", 3)
    limits = {"lowest": (0.0,) * size, "highest": (1.0,) * size}
    save(context, network(**changes), **limits)
    with pytest.raises(StageError, match=message) as refusal:
        check(context)
    assert context.paths.model in str(refusal.value)
    assert "run the stage train" in str(refusal.value)


def test_forcing_in_other_units_is_seen_by_its_values(context):
    def to_celsius(group):
        group["forcing"][:, 1] = group["forcing"][:, 1] - 273.15

    edit(context.paths.product("smap_l4"), to_celsius)
    message = r"\(surface_temp\) lies at 11\.85 to 11\.85, mean 11\.85: .* 200 to 330 K"
    with pytest.raises(StageError, match=message):
        check(context)


def test_a_model_without_limits_is_refused(context):
    save(context, lowest=(0, 0, 0), highest=(1, 1, 1))
    with pytest.raises(StageError, match="0 to 1, as before training"):
        check(context)
    save(context, lowest=(5e4, float("nan"), 0))
    with pytest.raises(StageError, match=r"\(surface_temp\) has limits nan to 330 K"):
        check(context)


def test_the_probe_goes_back_to_days_with_values(context):
    url = context.paths.product("smap_l4")

    def lose_the_end(group):
        group["forcing"][:, 0] = 10.0  # wrong everywhere, but seen on the first block alone
        group["forcing"][32:] = np.nan

    edit(url, lose_the_end)
    with pytest.raises(StageError, match=r"\(surface_pressure\) lies at 10 to 10"):
        check(context)

    def lose_everything(group):
        group["forcing"][:] = np.nan

    edit(url, lose_everything)
    with pytest.raises(StageError, match=r"no value of forcing .* 2015-03-31 to 2015-05-19"):
        check(context)


def test_land_without_features_is_refused_unless_allowed(context, tmp_path):
    def lose(group):
        group["auxiliary"][1, 12, 31:33] = np.nan
        group["auxiliary"][0, 12, 31] = np.inf

    edit(context.paths.static, lose)
    corner = context.recipe.tiles.rows.start, context.recipe.tiles.columns.start
    latitude = float(dp.open_cube(context.paths.static)["latitude"][12])
    with pytest.raises(StageError) as refusal:
        check(context)
    text = str(refusal.value)
    assert "2 of 40 land cells have not all auxiliary features" in text
    assert "(elevation in 1, slope in 2 cells)" in text
    assert f"row {corner[0] + 12}, column {corner[1] + 31} at latitude {latitude:.3f}" in text
    assert "terrain.urls" in text
    assert "predict.allow_missing_features: true" in text
    check(context_of(tmp_path, predict={"allow_missing_features": True}))


def test_too_little_history_is_refused(context, tmp_path):
    late = {"start": "2015-04-20", "end": "2015-06-30"}
    with pytest.raises(StageError, match=r"holds 30 days of the period 2015-04-20 .* needs 40"):
        check(context_of(tmp_path, period=late))
    later = {"start": "2016-04-20", "end": "2016-06-30"}
    with pytest.raises(StageError, match=r"holds 0 days of the period 2016-04-20 .* stage ingest"):
        check(context_of(tmp_path, period=later))
    check(context_of(tmp_path, period={"start": "2015-04-10", "end": "2015-06-30"}))


def test_days_that_were_never_ingested_are_no_history(context):
    ingest_only(context, 1)
    with pytest.raises(StageError, match=r"holds 18 days .*\(block 0 rows \S+ not ingested\)"):
        check(context)


def test_blocks_that_were_not_ingested_are_named_where_others_suffice(context, tmp_path):
    ingest_only(context, 0, 2)
    edit(context.paths.product("smap_l4"), lambda group: extend(group, 96))
    longer = {"start": "2015-03-31", "end": "2015-07-04"}
    printing = replace(context_of(tmp_path, period=longer), console=Console(record=True, width=200))
    check(printing)
    assert "forcing not ingested" in (text := printing.console.export_text())
    assert "block 1 rows" in text
    assert "block 0" not in text


def ingest_only(context, *blocks) -> None:
    """Let the ledger of the forcing say that these blocks were ingested and no others."""
    repository = open_repository(context.paths.product("smap_l4"))
    filled = next(c for c in repository.ancestry(branch=MAIN) if c.metadata["stage"] == "edit")
    repository.reset_branch(MAIN, filled.id)
    note_ingested(repository, context.recipe.tiles, blocks)


def test_cubes_of_another_region_or_none_are_refused(context, tmp_path):
    with pytest.raises(StageError, match=r"covers tile rows \(\d+, \d+\) .* the recipe's region"):
        check(context_of(tmp_path, region={"west": 10.0, "south": 40.4, "east": 11, "north": 41}))
    shutil.rmtree(context.paths.static)
    with pytest.raises(NotACubeError, match="static"):
        check(context)


def test_profiles_of_another_model_are_refused_with_both_named(context):
    mine = str(describe_model(context.paths.model)["fingerprint"])
    url = context.paths.coefficients
    open_or_create(url, static_template(context.recipe.tiles, FEATURES))
    edit(url, fill_static, model=mine)
    check(context)
    edit(url, fill_static, model="0ddba11")
    with pytest.raises(StageError, match=rf"the model 0ddba11, but the recipe's model is {mine}"):
        check(context)


def test_a_period_that_ends_before_the_profiles_is_refused(context, tmp_path):
    url, tiles = context.paths.coefficients, context.recipe.tiles
    open_or_create(url, coefficients_template(tiles, flag_attributes={}, first_block=1))
    check(context)  # a cube without a day yet
    edit(url, lambda group: extend(group, N_DAYS - 32))
    check(context)
    shorter = {"start": "2015-03-31", "end": "2015-05-15"}
    with pytest.raises(StageError) as refusal:
        check(context_of(tmp_path, period=shorter))
    text = str(refusal.value)
    for words in ("up to 2015-05-19", "ends on 2015-05-15", "another root", "remove that cube"):
        assert words in text


def test_a_model_of_an_older_format_is_refused_with_the_way_out(context):
    path = Path(context.paths.model) / "model.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(StageError, match=r"'deepprofile-model', 1\).* reads .* 2\).*stage train"):
        check(context)
