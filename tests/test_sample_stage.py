"""The stage sample on small cubes: series, weights, the table of cells, what is read."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from fault_support import threads
from rich.console import Console

from deepprofile import grid
from deepprofile.benchmark import committed_writer, make_cube
from deepprofile.collocation import Flag, flag_attributes
from deepprofile.model.coverage import FATES
from deepprofile.products import PRODUCTS
from deepprofile.recipe import load_recipe
from deepprofile.stages import Context, StageError, cell_table, sample
from deepprofile.stages.cell_table import COUNTS, read_cell_table
from deepprofile.stages.ingest_jobs import product_template
from deepprofile.stages.training_material import read_material
from deepprofile.store import collocation_template, head, open_cube, static_template
from deepprofile.store.kinds import FEATURES

START, STOP, WINDOW, SHORT = 2, 64, 40, 60
"""Days of the period, of the window, and after which one product has ended."""
NAMES = ("smap_l4", "era5_land", "gldas")
PLACES = np.array(
    [(3, 5), (3, 6), (9, 60), (20, 20), (40, 33), (55, 63), (0, 64), (7, 80), (31, 99)]
)
"""Rows and columns in the region of the cells that have all products; the last three lie in a
second tile."""
INVALID = (1, 2, 6, 7)
RECIPE = {
    "name": "small",
    "period": {"start": "2015-04-02", "end": "2015-06-02"},
    "region": {"west": 2.0, "south": 45.0, "east": 9.0, "north": 45.1},
    "products": {name: {"url": "nowhere"} for name in NAMES},
    "terrain": {"urls": ["nowhere"]},
    "collocation": {"min_samples": 30},
    "sample": {"other_cells": 100, "max_gap_days": 2},
    "training": {"window": WINDOW},
}


def context_of(folder: Path, client, **changes) -> Context:
    path = folder / "recipe.yaml"
    options = {name: {**RECIPE[name], **more} for name, more in changes.items()}
    path.write_text(yaml.safe_dump({**RECIPE, **options, "root": str(folder / "root")}))
    return Context(load_recipe(path), client, Console(record=True, width=2000))


def place_in(values: np.ndarray, cells: np.ndarray) -> None:
    """Write values (cells, …) at PLACES into a field (…, y, x)."""
    values[..., PLACES[:, 0], PLACES[:, 1]] = np.moveaxis(cells, 0, -1)


def forcing() -> np.ndarray:
    """Forcing (cells, days, variables) with holes, exact in the bits that are kept."""
    values = np.random.default_rng(1).integers(1, 4096, (len(PLACES), STOP, 39)) / np.float32(4096)
    values[0, 50:52, 3] = np.nan  # short enough to be filled
    values[4, 50:53, 5] = np.nan
    values[5, :, 7] = np.nan
    return values.astype(np.float32)


def moisture(name: str) -> np.ndarray:
    """Soil moisture (cells, days, layers) of a product; cell 3 has none on any day."""
    shape = len(PLACES), SHORT if name == "gldas" else STOP, len(PRODUCTS[name].layers)
    values = np.random.default_rng(len(name)).integers(1, 2048, shape) / np.float32(4096)
    values[3] = np.nan
    values[2, 57] = np.nan
    return values.astype(np.float32)


def collocated() -> tuple[np.ndarray, np.ndarray]:
    """Weights (cells, products) and flags (cells,)."""
    weight = np.random.default_rng(3).dirichlet((3, 2, 1), len(PLACES)).astype(np.float32)
    flag = np.full(len(PLACES), Flag.VALID, np.uint8)
    flag[list(INVALID)] = Flag.NON_POSITIVE_COVARIANCE
    return weight, flag


def write_collocation(context: Context, weight: np.ndarray, flag: np.ndarray) -> None:
    region = context.recipe.tiles
    shutil.rmtree(context.paths.collocation, ignore_errors=True)
    made = collocation_template(region, NAMES, flag_attributes=flag_attributes(NAMES))
    fields = {
        "weight": np.full((3, *region.shape), np.nan, np.float32),
        "flag": np.full(region.shape, 255, np.uint8),
    }
    place_in(fields["weight"], weight)
    place_in(fields["flag"], flag)
    with committed_writer(make_cube(context.paths.collocation, made, 0)) as writer:
        for name, values in fields.items():
            writer.write(name, {}, values)


def write_world(context: Context) -> None:
    """Cubes of the products, of the features and of the weights."""
    region, paths = context.recipe.tiles, context.paths
    for name in NAMES:
        arrays = {"soil_moisture": moisture(name)}
        if name == "smap_l4":
            arrays["forcing"] = forcing()
        n_days = arrays["soil_moisture"].shape[1]
        template = product_template(PRODUCTS[name], region)
        with committed_writer(make_cube(paths.product(name), template, n_days)) as writer:
            for array, cells in arrays.items():
                field = np.full((*cells.shape[1:], *region.shape), np.nan, np.float32)
                place_in(field, cells)
                writer.write(array, {}, field)
    auxiliary = np.zeros((len(FEATURES), *region.shape), np.float32)
    auxiliary[0] = np.arange(region.shape[1])
    auxiliary[1, PLACES[1, 0], PLACES[1, 1]] = np.nan
    with committed_writer(make_cube(paths.static, static_template(region), 0)) as writer:
        writer.write("auxiliary", {}, auxiliary)
    write_collocation(context, *collocated())


@pytest.fixture(scope="module")
def driver():
    with threads() as client:
        yield client


@pytest.fixture(scope="module")
def finished(tmp_path_factory, driver) -> Context:
    context = context_of(tmp_path_factory.mktemp("sample"), driver)
    write_world(context)
    context.console.print(sample.run(context), highlight=False, markup=False)
    return context


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished.recipe.root, tmp_path / "root")
    return tmp_path


def order_of(context: Context) -> np.ndarray:
    """Number in PLACES of each cell of the cube of samples."""
    cube, region = open_cube(context.paths.samples, chunks=None), context.recipe.tiles
    found = np.stack([cube["row"] - region.rows.start, cube["column"] - region.columns.start], 1)
    return np.array([np.flatnonzero((place == PLACES).all(1)).item() for place in found])


def test_every_cell_has_its_series_of_the_period(finished):
    cube, order = open_cube(finished.paths.samples, chunks=None), order_of(finished)
    assert sorted(order) == list(range(len(PLACES)))
    series = np.moveaxis(forcing()[order], 1, 2)
    series[..., :START] = np.nan
    np.testing.assert_array_equal(cube["series"], series)
    target = np.full((len(PLACES), 8, STOP), np.nan, np.float32)
    first = 0
    for name in NAMES:
        values = np.moveaxis(moisture(name)[order], 1, 2)
        layers = slice(first, first := first + values.shape[1])
        target[:, layers, START : values.shape[2]] = values[..., START:]
    np.testing.assert_array_equal(cube["target"], target)
    np.testing.assert_array_equal(cube["auxiliary"][:, 0], PLACES[order, 1])


def layer_weights(weights: np.ndarray) -> np.ndarray:
    """Weights of layers (…, layers) from those of products (…, products), in plain words."""
    thickness = {"smap_l4": [0.05, 1.0], "era5_land": [0.07, 0.21, 0.72], "gldas": [0.1, 0.3, 0.6]}
    parts = [weights[..., [i]] * np.array(thickness[name]) for i, name in enumerate(NAMES)]
    return np.concatenate(parts, axis=-1)


def test_invalid_cells_have_the_median_weights_of_the_valid_training_cells(finished):
    cube, order = open_cube(finished.paths.samples, chunks=None), order_of(finished)
    weight, flag = (values[order] for values in collocated())
    valid, training = flag == Flag.VALID, cube["split"].values == "train"
    assert 0 < (valid & training).sum() < valid.sum()
    medians = np.median(weight[valid & training], axis=0)
    everywhere = np.where(valid[:, None], weight, medians / medians.sum())
    np.testing.assert_allclose(cube["weight"], layer_weights(everywhere), rtol=1e-6)
    of_all = np.median(weight[valid], axis=0)
    assert not np.allclose(medians / medians.sum(), of_all / of_all.sum(), rtol=1e-3)


def test_weights_of_validation_cells_change_those_of_no_other_cell(finished, copied, driver):
    before, order = open_cube(finished.paths.samples, chunks=None), order_of(finished)
    weight, flag = collocated()
    validates = order[before["split"].values == "validation"]
    valid = validates[flag[validates] == Flag.VALID]
    assert len(valid)
    assert (flag[order[before["split"].values == "train"]] != Flag.VALID).any()
    weight[valid] = [0.01, 0.01, 0.98]
    context = context_of(copied, driver)
    write_collocation(context, weight, flag)
    sample.run(context)
    after, changed = open_cube(context.paths.samples, chunks=None), np.isin(order, valid)
    assert (after["split"].values == before["split"].values).all()
    np.testing.assert_array_equal(after["weight"][~changed], before["weight"][~changed])
    assert (after["weight"].values != before["weight"].values)[changed].any(axis=1).all()


def test_without_a_valid_training_cell_the_weights_follow_the_scales(copied, driver):
    context = context_of(copied, driver)
    weight, flag = collocated()
    training = order_of(context)[
        open_cube(context.paths.samples, chunks=None)["split"].values == "train"
    ]
    flag[training] = Flag.NON_POSITIVE_COVARIANCE
    write_collocation(context, weight, flag)
    sample.run(context)
    cube, order = open_cube(context.paths.samples, chunks=None), order_of(context)
    invalid = (flag != Flag.VALID)[order]
    expected = layer_weights(np.array([1.0, 1.0, 0.4]) / 2.4)
    assert 0 < invalid.sum() < len(invalid)
    np.testing.assert_allclose(
        cube["weight"][invalid], np.tile(expected, (invalid.sum(), 1)), rtol=1e-6
    )


def fate_of(number: int, day: int, window: int = WINDOW, max_gap: int = 2) -> str:
    """What becomes of a cell-day, in plain words."""
    gaps = {0: range(50, 52), 4: range(50, 53), 5: range(START, STOP)}.get(number, range(0))
    holes = set(gaps) if len(gaps) > max_gap else set()
    if day < START + window - 1:
        return "before_first_window"
    if number == 1:
        return "missing_features"
    if holes & set(range(day - window + 1, day + 1)):
        return "gap_in_forcing"
    return "no_target" if number == 3 or (number, day) == (2, 57) else "samples"


def fates(context: Context, **options) -> pd.DataFrame:
    rows = [
        pd.Series([fate_of(n, day, **options) for day in range(START, STOP)]).value_counts()
        for n in order_of(context)
    ]
    return pd.DataFrame(rows).reindex(columns=list(COUNTS)).fillna(0).astype(int)


def test_the_table_says_where_every_cell_lies_and_what_its_days_become(finished, monkeypatch):
    table = read_cell_table(finished.paths.cells)
    names = ["cell", "row", "column", "latitude", "longitude", "class", "network", "split"]
    assert list(table.columns) == [*names, "samples", *FATES[1:]]
    cube = open_cube(finished.paths.samples, chunks=None)
    for name, other in {"class": "cell_class"}.items() | {
        (n, n) for n in ("row", "column", "split")
    }:
        assert table[name].tolist() == cube[other].values.tolist()
    assert table["cell"].tolist() == list(range(len(PLACES)))
    np.testing.assert_array_equal(table["latitude"], grid.latitudes()[table["row"]])
    np.testing.assert_array_equal(table["longitude"], grid.longitudes()[table["column"]])
    assert set(table["network"]) == {""}
    counts = table[list(COUNTS)]
    np.testing.assert_array_equal(counts, fates(finished))
    assert (counts.sum(axis=1) == STOP - START).all()
    assert (counts.sum() > 0).all()
    material = read_material(finished.recipe, finished.paths.samples)
    np.testing.assert_array_equal(counts, material.found.days)
    monkeypatch.setattr(cell_table, "GROUP", 2)  # several groups give the same
    groups = list(cell_table.count_days(cube, finished.recipe))
    assert len(groups) == 5
    np.testing.assert_array_equal(np.concatenate(groups), counts)
    schema = pq.read_schema(finished.paths.cells)
    assert schema.field("latitude").metadata[b"units"] == b"degrees_north"
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)


def test_the_summary_reports_samples_skipped_days_and_bytes(finished, driver):
    printed = finished.console.export_text(clear=False)
    total = fates(finished).sum()
    assert f"{total['samples']:,} samples of {len(PLACES) * (STOP - START):,} cell-days" in printed
    assert f"{total['no_target']:,} without a target" in printed
    assert f"{total['gap_in_forcing']:,} with a gap of the forcing in the window" in printed
    block = 32 * 56 * 64 * 4  # of one variable; every product has values in two blocks
    read = 2 * 2 * block * (39 + 8)
    written = 4 * len(PLACES) * (STOP * (39 + 8) + len(FEATURES) + 8)
    assert f"read {read / 2**20:.2f} MiB and wrote {written / 2**10:.2f} kiB raw" in printed
    assert "read 0 B and wrote 0 B" in sample.run(
        context_of(Path(finished.recipe.root).parent, driver)
    )


def test_the_table_is_made_anew_only_where_something_changed(copied, driver):
    context = context_of(copied, driver)
    sample.run(context)  # another place is another input
    path = Path(context.paths.cells)
    before = path.stat().st_mtime_ns
    sample.run(context)
    assert path.stat().st_mtime_ns == before
    snapshot = head(context.paths.samples)
    sample.run(context_of(copied, driver, training={"window": 80}))
    assert head(context.paths.samples) == snapshot
    np.testing.assert_array_equal(counts_of(context), fates(context, window=80))
    sample.run(context_of(copied, driver, sample={"max_gap_days": 3}))
    np.testing.assert_array_equal(counts_of(context), fates(context, max_gap=3))
    path.write_bytes(path.read_bytes()[:-20])
    sample.run(context_of(copied, driver, sample={"max_gap_days": 3}))
    np.testing.assert_array_equal(counts_of(context), fates(context, max_gap=3))


def counts_of(context: Context) -> pd.DataFrame:
    return read_cell_table(context.paths.cells)[list(COUNTS)]


def stations_at(context: Context, classes: dict[int, str], *outside: tuple[int, int]):
    """Station cells at some of PLACES, and others outside the region."""
    region = context.recipe.tiles
    corner = np.array([region.rows.start, region.columns.start])
    places = [*(PLACES[list(classes)] + corner).tolist(), *outside]
    table = pd.DataFrame(places, columns=["row", "column"])
    return table.assign(cell_class=[*classes.values(), *["extra"] * len(outside)], network="NET")


def test_other_stations_are_refused_before_series_of_other_cells_are_taken_for_theirs(
    finished, tmp_path, driver, monkeypatch
):
    shutil.copytree(finished.recipe.root, tmp_path / "root")
    shutil.rmtree(tmp_path / "root" / "cubes" / "samples")
    context = context_of(tmp_path, driver, sample={"allow_core_neighbours": True})
    stations = stations_at(context, {3: "extra", 4: "extra", 5: "extra"})
    monkeypatch.setattr(sample, "prepare_ground_truth", lambda context: stations)
    # the fallback must not tell the two runs apart
    monkeypatch.setattr(sample, "training_weights", lambda *_: dict.fromkeys(NAMES, 1 / 3))
    sample.run(context)
    before = head(context.paths.samples)
    stations["cell_class"] = "core"
    with pytest.raises(StageError, match="3 changed their class"):
        sample.run(context)
    assert head(context.paths.samples) == before
    stations["cell_class"] = "extra"
    sample.run(context)
    assert head(context.paths.samples) == before


def test_what_only_training_uses_extracts_nothing_anew(copied, driver):
    context = context_of(copied, driver)
    sample.run(context)  # its cubes lie elsewhere than those from which the copy was made
    before = head(context.paths.samples)
    sample.run(context_of(copied, driver, sample={"max_gap_days": 1}))
    assert head(context.paths.samples) == before


def test_station_cells_that_are_left_out_are_named(finished, tmp_path, driver, monkeypatch):
    shutil.copytree(finished.recipe.root, tmp_path / "root")
    shutil.rmtree(tmp_path / "root" / "cubes" / "samples")
    context = context_of(tmp_path, driver)
    stations = stations_at(context, {4: "extra"}, (3, 3))
    region = context.recipe.tiles
    empty = pd.DataFrame(
        {
            "row": [region.rows.start],
            "column": [region.columns.start],
            "cell_class": ["core"],
            "network": ["NET"],
        }
    )
    both = pd.concat([stations, empty], ignore_index=True)
    monkeypatch.setattr(sample, "prepare_ground_truth", lambda context: both)
    sample.run(context)
    text = context.console.export_text()
    assert "2 of 3 core and extra cells are left out: 1 outside the region, 1 without 30" in text
    assert f"row {region.rows.start} column {region.columns.start}" in text
