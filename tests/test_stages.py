"""The whole chain on a small demo Earth: files in, evaluated profile out; again; with faults."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

import deepprofile as dp
from deepprofile import grid
from deepprofile.evaluation.reference.series import cell_table
from deepprofile.model.flags import Flag
from deepprofile.model.io import read_description
from deepprofile.model.prediction import predict_windows
from deepprofile.recipe import load_recipe
from deepprofile.stages import Context, StageError, chain, collocate
from deepprofile.stages.stations import open_ground_truth
from deepprofile.store import JobError, describe, history, render
from deepprofile.store.layout import TILE_COLUMNS, TILE_ROWS

WINDOW = 40
N_DAYS = 96
RECIPE = {
    "name": "small",
    "synthetic": {"seed": 3, "size": 12},
    "period": {"start": "2015-03-31", "end": "2015-07-04"},
    "region": {"west": 22.7, "south": 40.4, "east": 23.6, "north": 41.4},
    "products": {n: {"url": "{root}/earth/" + n} for n in ("smap_l4", "era5_land", "gldas")},
    "terrain": {"urls": ["{root}/earth/dem.nc"]},
    "stations": {"urls": ["{root}/earth/stations.zip"]},
    "ingest": {"blocks_per_commit": 2, "min_fraction": 0.25},
    "collocation": {"min_samples": 30, "bootstrap": 20, "block_days": 20},
    "ground_truth": {"min_days": 20},
    "sample": {"other_cells": 1000},
    "training": {"window": WINDOW, "epochs": 2, "average_last": 1, "samples_per_epoch": 512},
    "evaluate": {"min_days": 20, "min_cells": 8, "replicates": 20},
}
KEPT = ("T013000_", "T043000_", "T133000_", ".0300.", ".1200.", ".2100.", ".A20150403.")
"""In the names of the SMAP L4 and GLDAS granules that are read: three a day, among them the one
that was cut off and the one of two versions, and a whole day of GLDAS."""


def context_of(folder: Path, client, **changes) -> Context:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "root": str(folder / "work"), **changes}))
    return Context(load_recipe(path), client, Console(record=True, width=200))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, client) -> Context:
    context = context_of(tmp_path_factory.mktemp("chain"), client)
    chain.run(["synthesize"], context)
    for name in ("smap_l4", "gldas"):
        for path in Path(context.recipe.products[name].url).rglob("*"):
            if path.is_file() and not any(part in path.name for part in KEPT):
                path.unlink()
    chain.run(chain.select(context.recipe, None), context)
    return context


def test_cubes_have_the_layout_and_labels_that_users_rely_on(finished):
    paths = finished.paths
    smap = dp.open_cube(paths.product("smap_l4"))
    assert smap["forcing"].dims == ("time", "variable", "y", "x")
    assert smap["forcing"].sizes["variable"] == 39
    assert smap["forcing"].data.chunksize == (32, 39, 56, 64)
    assert smap["forcing"].encoding["grid_mapping"] == "spatial_ref"
    era5 = dp.open_cube(paths.product("era5_land"))
    assert era5["bottom"].values.tolist() == [0.07, 0.28, 1.0]
    assert era5["n_steps"].max().compute() == 24
    assert dp.open_cube(paths.product("gldas"))["n_steps"].max().compute() == 8
    assert smap.sizes["time"] == N_DAYS


def test_every_land_cell_and_day_has_a_profile_or_a_reason(finished):
    cube = dp.open_cube(finished.paths.coefficients).load()
    land = dp.open_cube(finished.paths.static)["land"].values == 1
    flag = cube["flag"].values
    there = np.isfinite(cube["coefficients"].values).all(axis=1)
    assert np.array_equal(there, np.isin(flag, [Flag.VALID, Flag.GAP_FILLED]))
    first = WINDOW - 1 - 32  # the cube begins with the block of the first full window
    assert (flag[:first, land] == Flag.NO_FULL_WINDOW).all()
    assert there[first:, land].mean() > 0.9
    assert not there[:, ~land].any()


def test_the_model_knows_names_and_units_of_what_it_reads(finished):
    paths, config = finished.paths, dp.load_model(finished.paths.model).config
    smap, static = dp.open_cube(paths.product("smap_l4")), dp.open_cube(paths.static)
    assert config.variables == tuple(smap["variable"].values)
    assert config.variable_units == tuple(smap["units"].values)
    assert config.features == tuple(static["feature"].values)
    assert config.feature_units == tuple(static["units"].values)
    assert "K" in config.variable_units


def test_the_stage_predicts_what_the_lazy_face_and_the_network_predict(finished):
    paths = finished.paths
    model = dp.load_model(paths.model)
    smap, static = dp.open_cube(paths.product("smap_l4")), dp.open_cube(paths.static)
    cube = dp.open_cube(paths.coefficients)
    lazy = dp.predict(model, smap["forcing"], static["auxiliary"], land=static["land"])
    lazy = lazy.sel(time=cube["time"]).compute()
    assert np.array_equal(lazy["flag"].values, cube["flag"].values)
    for depth in (0.0, 0.05, 0.3, 1.0):
        stage, face = cube.profile.at(depth).compute(), lazy.profile.at(depth)
        # Coefficients are stored with 16 bits of mantissa: each is off by at most 2^-17 of itself.
        sizes = np.abs(lazy["coefficients"]) * depth ** lazy["degree"]
        allowed = (2.0**-17 * sizes.sum("degree") + 1e-6).values
        there = np.isfinite(face.values)
        assert there.sum() > 1000
        assert np.array_equal(there, np.isfinite(stage.values))
        assert (np.abs(stage - face).values[there] <= allowed[there]).all()
    y, x = (axis[0] for axis in np.nonzero(cube["flag"].values[-1] == Flag.VALID))
    series = smap["forcing"][:, :, y, x].values.T[None]
    direct = predict_windows(model, series, static["auxiliary"][:, y, x].values[None])[0, -1]
    at_1_m = lazy.profile.at(1.0)[-1, y, x]
    np.testing.assert_allclose(direct.sum(), at_1_m, atol=1e-5)


def test_weights_sum_to_one_in_every_land_cell(finished):
    cube = dp.open_cube(finished.paths.collocation).load()
    land = dp.open_cube(finished.paths.static)["land"].values == 1
    np.testing.assert_allclose(cube["weight"].sum("product").values[land], 1, atol=1e-6)
    assert (cube["flag"].values[~land] == 255).all()


def test_the_stage_collocates_as_the_lazy_face(finished):
    from deepprofile.collocation import column

    cubes = [dp.open_cube(finished.paths.product(n)) for n in RECIPE["products"]]
    lazy = dp.triple_collocation(
        *(column(cube["soil_moisture"]) for cube in cubes), scale=(1, 1, 0.4), min_samples=30
    )
    stage = dp.open_cube(finished.paths.collocation)
    land = dp.open_cube(finished.paths.static)["land"].values == 1
    assert np.array_equal(lazy["flag"].values[land], stage["flag"].values[land])
    np.testing.assert_allclose(
        lazy["error_variance"].values[:, land], stage["error_variance"].values[:, land], rtol=1e-5
    )


def test_flaws_of_the_archive_are_listed(finished):
    printed = finished.console.export_text(clear=False)
    commits = history(finished.paths.product("smap_l4"))
    aside = [item for commit in commits for item in commit.metadata.get("set_aside", ())]
    assert aside
    assert all(Path(item["url"]).exists() and item["reason"] for item in aside)
    for item in aside:
        assert Path(item["url"]).name in printed.replace("\n", "")
    console = Console(record=True, width=200)
    console.print(render(describe(finished.paths.product("smap_l4"))))
    assert Path(aside[0]["url"]).name in console.export_text().replace("\n", "")


def test_the_report_compares_all_estimates_with_stations_and_truth(finished):
    report = Path(finished.paths.report)
    table = pd.read_csv(report / "metrics.csv")
    assert set(table["reference"]) == {"stations", "truth"}
    expected = {"deepprofile", "smap_l4", "era5_land", "gldas", "mean", "tc_mean"}
    assert set(table["estimate"]) == expected
    assert (table["rmse"].isna() == (table["n"] < RECIPE["evaluate"]["min_days"])).all()
    compared = table[table["rmse"].notna()]
    days = compared.groupby(["reference", "row", "column", "group", "top"])["n"].nunique()
    assert (days == 1).all()
    assert table.loc[table["rmse"].isna(), "reason"].notna().all()
    page = (report / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']+""", page)
    assert len(list((report / "figures").iterdir())) >= 5


def test_tables_are_made_of_all_tiles_together(finished):
    report = Path(finished.paths.report)
    tables = {file.stem: pd.read_csv(file) for file in report.glob("*.csv")}
    made = {"summary", "classes", "missing_metrics", "pairs", "pairs_summary", "intercomparison"}
    assert tables.keys() >= made | {"intercomparison_medians"}
    metrics, pairs = tables["metrics"], tables["pairs"]
    cells = metrics[["row", "column"]].drop_duplicates()
    tiles = {(row // TILE_ROWS, column // TILE_COLUMNS) for row, column in cells.to_numpy()}
    assert len(tiles) > 1
    lines = tables["intercomparison"].groupby(["row", "column"]).size()
    assert set(lines) == {8}
    assert set(lines.index) == set(cells.itertuples(index=False, name=None))
    assert set(pairs["subject"]) == {"deepprofile"}
    assert set(pairs["other"]) == set(metrics["estimate"]) - {"deepprofile"}
    medians = tables["summary"].query("reference == 'truth' and split == 'validation'")
    chosen = metrics.query("reference == 'truth' and split == 'validation'")
    expected = chosen.groupby(["group", "estimate"])["ubrmse"].median()
    found = medians.set_index(["group", "estimate"])["ubrmse"]
    pd.testing.assert_series_equal(found.sort_index(), expected.sort_index(), rtol=1e-9)


def test_metrics_know_the_status_of_triple_collocation_in_their_cell(finished):
    table = pd.read_csv(Path(finished.paths.report) / "metrics.csv")
    flag = dp.open_cube(finished.paths.collocation, chunks=None)["flag"]
    meanings = flag.attrs["flag_meanings"].split()
    for (row, column), lines in table.groupby(["row", "column"]):
        place = {"y": grid.y_centers()[row], "x": grid.x_centers()[column]}
        here = int(flag.sel(place, method="nearest", tolerance=1.0))
        assert set(lines["collocation"]) == {meanings[here]}
    assert "collocation" in set(pd.read_csv(Path(finished.paths.report) / "classes.csv")["by"])


def test_the_table_of_cells_agrees_with_cube_stations_and_model(finished):
    paths = finished.paths
    table, cube = pd.read_parquet(paths.cells), dp.open_cube(paths.samples)
    for name in ("row", "column", "latitude", "longitude", "split"):
        np.testing.assert_array_equal(table[name], cube[name])
    known = cell_table(open_ground_truth(paths.ground_truth)).set_index(["row", "column"])
    with_stations = table[table["class"] != "other"]
    found = known.loc[list(zip(with_stations["row"], with_stations["column"], strict=True))]
    assert with_stations["class"].tolist() == found["cell_class"].tolist()
    assert with_stations["network"].tolist() == found["network"].tolist()
    assert with_stations["network"].str.len().min() > 0
    assert set(table.loc[table["class"] == "other", "network"]) == {""}
    core = table[table["class"] == "core"]
    assert set(core["split"]) == {"validation"}
    trains = table[table["split"].isin(["train", "candidate"])]
    apart = [
        np.abs(trains[axis].to_numpy()[:, None] - core[axis].to_numpy())
        for axis in ("row", "column")
    ]
    assert len(core) and len(trains)
    assert np.maximum(*apart).min() > 1
    counted = read_description(paths.model)["metadata"]["cell_days"]
    for split in ("train", "validation"):
        mine = table[table["split"] == split].rename(columns={"samples": "sample"})
        assert {name: mine[name].sum() for name in counted[split]} == counted[split]
    assert "samples of" in finished.console.export_text(clear=False)


def test_running_again_does_nothing_and_changes_nothing(finished):
    paths = finished.paths
    table = Path(paths.cells).stat().st_mtime_ns
    cubes = [paths.product("smap_l4"), paths.collocation, paths.samples, paths.coefficients]
    before = [history(url)[0].snapshot_id for url in cubes]
    model = (Path(paths.model) / "model.safetensors").read_bytes()
    chain.run(["ingest", "collocate", "sample", "train", "predict"], finished)
    assert [history(url)[0].snapshot_id for url in cubes] == before
    assert Path(paths.cells).stat().st_mtime_ns == table
    assert (Path(paths.model) / "model.safetensors").read_bytes() == model


def test_the_same_recipe_gives_the_same_loss_curve(finished, tmp_path, client):
    root = tmp_path / "work"
    shutil.copytree(finished.recipe.root, root)
    again = context_of(tmp_path, client)
    for name in ("collocation", "samples", "model", "coefficients"):
        shutil.rmtree(getattr(again.paths, name))
    chain.run(["collocate", "sample", "train"], again)
    first, second = (
        pd.read_csv(Path(c.paths.model) / "history.csv").drop(columns="steps_per_second")
        for c in (finished, again)
    )
    pd.testing.assert_frame_equal(first, second)


def test_any_period_is_cut_out_of_the_whole_and_a_longer_one_continues_it(
    finished, tmp_path, client
):
    start, end = "2015-04-10", "2015-06-10"
    shutil.copytree(Path(finished.recipe.root) / "earth", tmp_path / "work" / "earth")
    short, longer = (
        context_of(tmp_path, client, period={"start": start, "end": last})
        for last in ("2015-05-25", end)
    )
    chain.run(["ingest"], short)
    chain.run(["ingest", "collocate", "sample"], longer)
    inside = slice(start, end)
    for name in RECIPE["products"]:
        part, whole = (
            dp.open_cube(c.paths.product(name))["soil_moisture"].sel(time=inside)
            for c in (longer, finished)
        )
        np.testing.assert_array_equal(part, whole)
    series = dp.open_cube(longer.paths.samples)["series"]
    assert not np.isfinite(series.sel(time=slice(None, "2015-04-09")).values).any()
    assert np.isfinite(series.sel(time=inside).values).mean() > 0.99
    before = dp.open_cube(longer.paths.product("gldas"))["soil_moisture"].load()
    chain.run(["ingest"], short)
    again = dp.open_cube(longer.paths.product("gldas"))["soil_moisture"]
    np.testing.assert_array_equal(again, before)


def test_what_an_input_changes_is_done_again_and_nothing_else(finished, tmp_path, client):
    root = tmp_path / "work"
    shutil.copytree(finished.recipe.root, root)
    context = context_of(tmp_path, client)
    chain.run(["ingest"], context)
    smap, gldas = context.paths.product("smap_l4"), context.paths.product("gldas")
    before = {url: history(url)[0].snapshot_id for url in (smap, gldas)}
    late = sorted(Path(context.recipe.products["smap_l4"].url).rglob("*.h5"))[-20]
    shutil.copyfile(late, tmp_path / "copy.h5")
    shutil.move(tmp_path / "copy.h5", late)  # the same name, another time of change
    chain.run(["ingest"], context)
    newest = history(smap)[0].metadata
    assert len(newest["done"]) == 1
    assert {url: history(url)[0].snapshot_id for url in (smap, gldas)} != before
    assert history(gldas)[0].snapshot_id == before[gldas]


def test_a_setting_that_comes_back_is_applied_again(finished, tmp_path, client):
    root = tmp_path / "work"
    shutil.copytree(finished.recipe.root, root)
    weights = []
    for scale in (0.4, 1.0, 0.4):
        options = {**RECIPE["collocation"], "scale": {"gldas": scale}}
        context = context_of(tmp_path, client, collocation=options)
        chain.run(["collocate"], context)
        weights.append(dp.open_cube(context.paths.collocation)["weight"].values)
    np.testing.assert_array_equal(weights[0], weights[2])
    assert not np.array_equal(weights[0], weights[1], equal_nan=True)


def test_weights_are_filled_after_a_run_that_stopped_between_the_publications(
    finished, tmp_path, client, monkeypatch
):
    root = tmp_path / "work"
    shutil.copytree(finished.recipe.root, root)
    context = context_of(tmp_path, client)
    chain.run(["collocate"], context)
    weights = dp.open_cube(context.paths.collocation)["weight"].values
    options = {**RECIPE["collocation"], "scale": {"gldas": 1.0}}
    with monkeypatch.context() as patch:
        patch.setattr(collocate, "_publish_fallback", _stop)
        with pytest.raises(KeyboardInterrupt):
            chain.run(["collocate"], context_of(tmp_path, client, collocation=options))
    chain.run(["collocate"], context_of(tmp_path, client))
    np.testing.assert_array_equal(dp.open_cube(context.paths.collocation)["weight"].values, weights)


def _stop(*_) -> None:
    raise KeyboardInterrupt


def test_a_missing_elevation_model_is_named(finished, tmp_path, client):
    root = tmp_path / "work"
    shutil.copytree(Path(finished.recipe.root) / "earth", root / "earth")
    context = context_of(tmp_path, client, terrain={"urls": ["{root}/no_dem.nc"]})
    with pytest.raises(StageError, match=r"no elevation model at .*no_dem\.nc"):
        chain.run(["ingest"], context)


def test_a_profile_of_another_model_is_refused(finished, tmp_path, client):
    root = tmp_path / "work"
    for part in ("cubes", "model"):
        shutil.copytree(Path(finished.recipe.root) / part, root / part)
    other = context_of(tmp_path, client, training={**RECIPE["training"], "seed": 9})
    before = (root / "model" / "model.json").read_bytes()
    with pytest.raises(StageError, match=r"holds profiles of the model .* training makes another"):
        chain.run(["train"], other)
    assert (root / "model" / "model.json").read_bytes() == before
    model = dp.load_model(str(root / "model"))
    model.heads.bias_out.data += 0.01
    dp.save_model(model, str(root / "model"))
    with pytest.raises(StageError, match=r"holds profiles of the model .* the recipe's model is"):
        chain.run(["predict"], other)


def test_a_period_without_a_full_window_is_refused(tmp_path, client):
    context = context_of(tmp_path, client, training={**RECIPE["training"], "window": 120})
    with pytest.raises(StageError, match="needs 120 days of forcing"):
        chain.plans(context.recipe)


def test_an_unknown_stage_and_a_missing_earth_are_explained(finished):
    with pytest.raises(StageError, match="no stage 'predct'"):
        chain.select(finished.recipe, ["predct"])
    real = finished.recipe.model_copy(update={"synthetic": None})
    assert "synthesize" not in chain.select(real, None)
    with pytest.raises(StageError, match="synthetic"):
        chain.select(real, ["synthesize"])


def test_a_recipe_that_points_to_nothing_names_the_place(tmp_path, client):
    context = context_of(tmp_path, client)
    with pytest.raises(FileNotFoundError, match="smap_l4"):
        chain.run(["ingest"], context)


def test_jobs_that_do_not_fit_are_refused_before_any_is_started(tmp_path):
    with dp.connect(_small_cluster(tmp_path)) as small:
        globe = context_of(tmp_path, small, region=None)
        with pytest.raises(
            JobError, match=r"ingest needs .* for its job\. Give the workers more memory"
        ):
            chain.run(["ingest"], globe)
    assert not (tmp_path / "work").exists()


def _small_cluster(folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text("workers: 1\nmemory_limit: 2GiB\n")
    return path
