"""Ground truth of a recipe: archives and tables, read by jobs, kept with what was set aside."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rich.console import Console
from station_support import SensorFile, write_folder, write_zip

from deepprofile.evaluation.reference.ground_truth import ground_truth
from deepprofile.evaluation.stations import merge_records, read_archive, read_table
from deepprofile.recipe import Recipe
from deepprofile.stages import Context, StageError, stations
from deepprofile.stages.stations import (
    ground_truth_attributes,
    open_ground_truth,
    prepare_ground_truth,
)

START, DAYS = "2016-01-01", 200


def context_of(folder, client, console=None, truth=None, **sources) -> Context:
    recipe = Recipe.model_validate(
        {
            "name": "small",
            "root": str(folder / "root"),
            "period": {"start": START, "end": "2016-08-31"},
            "products": {name: {"url": "none"} for name in ("smap_l4", "era5_land", "gldas")},
            "terrain": {"urls": ["none"]},
            "stations": {name: [str(url) for url in urls] for name, urls in sources.items()},
            "ground_truth": truth or {},
        }
    )
    return Context(recipe, client, console or Console(quiet=True))


def sensor(name: str, depth: float = 0.2, n_days: int = DAYS, **options) -> SensorFile:
    values = 0.2 + 0.1 * np.sin(np.arange(n_days) / 9 + depth)
    return SensorFile(
        np.round(values, 4), station=name, depth=depth, step="D", start=START, **options
    )


def table_of(path, name: str, n_days: int = DAYS, depth: float = 0.2):
    frame = pd.DataFrame({"time": pd.date_range(START, periods=n_days).strftime("%Y-%m-%d")})
    frame = frame.assign(network="OWN", station=name, latitude=30.4, longitude=261.2)
    frame = frame.assign(depth_from=depth, depth_to=depth, soil_moisture=0.3)
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stations")
    first = [sensor(f"S{i:02d}", z) for i in range(12) for z in (0.05, 0.2, 0.5)]
    bad = sensor("Bad", flags=["M"] * DAYS)
    archive = write_zip(folder / "first.zip", [*first, bad])
    other = write_folder(folder / "second", [sensor("S03", n_days=120), sensor("New", 0.35)])
    tables = folder / "tables"
    tables.mkdir()
    table_of(tables / "one.csv", "T1")
    table_of(tables / "two.csv", "T2", depth=20)
    return {"urls": [archive, other], "tables": [tables]}


def test_jobs_give_what_reading_in_turn_gives(sources, tmp_path, client, monkeypatch):
    console = Console(record=True, width=500)
    context = context_of(tmp_path, client, console, **sources)
    assert len(stations._jobs(context.recipe)[0]) == 3 + 1 + 2
    cells = prepare_ground_truth(context)
    found = open_ground_truth(context.paths.ground_truth)
    period = {"start": pd.Timestamp(START).date(), "stop": pd.Timestamp("2016-09-01").date()}
    parts = [read_archive(url, **period) for url in sources["urls"]]
    parts += [read_table(sources["tables"][0] / name, **period) for name in ("one.csv", "two.csv")]
    merged = merge_records(parts)
    expected = ground_truth(merged)
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert list(cells.columns) == ["row", "column", "cell_class", "network"]
    assert cells["network"].tolist() == ["NET, OWN"] and cells["cell_class"].tolist() == ["core"]
    rejected = {
        item["reason"].split(" (")[0]: item["path"] for item in json.loads(found.attrs["rejected"])
    }
    assert len(rejected) == 4
    assert "Bad" in rejected["no possible reading with a good flag"]
    assert "two.csv: OWN T2 20 m" in str(rejected)
    assert any("the same sensor as" in reason for reason in rejected)
    assert "its depth belongs to no depth group" in rejected
    said = console.export_text()
    assert "set aside" in said and "S03" in said and "taken as UTC" in said
    assert len(json.loads(found.attrs["notes"])) == 1
    assert "estimate at that depth" in found.attrs["comparison"]

    def never(*args):
        raise AssertionError("read again")

    monkeypatch.setattr(stations, "_read", never)
    pd.testing.assert_frame_equal(prepare_ground_truth(context), cells)
    changed = context_of(tmp_path, client, truth={"core_stations": 14}, **sources)
    with pytest.raises(AssertionError, match="read again"):
        prepare_ground_truth(changed)


def test_settings_of_the_recipe_reach_the_ground_truth(tmp_path, client):
    archive = write_folder(tmp_path / "archive", [sensor(n, 0.05, 100) for n in "AB"])
    strict = prepare_ground_truth(context_of(tmp_path, client, urls=[archive]))
    assert strict["cell_class"].tolist() == ["unqualified"]
    truth = {"min_days": 90, "min_depth": 0.0, "core_stations": 2, "min_fraction": 0.5}
    context = context_of(tmp_path, client, truth=truth, urls=[archive])
    assert prepare_ground_truth(context)["cell_class"].tolist() == ["core"]
    attributes = ground_truth_attributes(context.paths.ground_truth)
    assert {name: attributes[name] for name in truth} == truth
    assert attributes["good_flags"] == "G"


def test_a_recipe_with_tables_alone_is_enough_and_with_neither_refused(tmp_path, client):
    context = context_of(tmp_path, client, tables=[table_of(tmp_path / "own.csv", "T")])
    assert prepare_ground_truth(context)["network"].tolist() == ["OWN"]
    with pytest.raises(ValueError, match="neither urls nor tables"):
        context_of(tmp_path, client)


def test_what_is_not_there_is_named_before_any_job(tmp_path, client):
    archive = write_folder(tmp_path / "archive", [sensor("A")])
    for sources in (
        {"urls": [archive, tmp_path / "absent.zip"]},
        {"tables": [tmp_path / "no.csv"]},
    ):
        with pytest.raises(FileNotFoundError, match=r"absent\.zip|no\.csv"):
            prepare_ground_truth(context_of(tmp_path, client, **sources))


def test_a_part_that_fails_stops_the_stage_by_name(tmp_path, client, monkeypatch):
    archive = write_zip(tmp_path / "archive.zip", [sensor("A")])
    context = context_of(tmp_path, client, urls=[archive])
    jobs, strange = stations._jobs(context.recipe)
    archive.unlink()  # after the listing
    monkeypatch.setattr(stations, "_jobs", lambda recipe: (jobs, strange))
    monkeypatch.setattr(stations, "tags_text", lambda url: "")
    with pytest.raises(StageError, match=r"1 of 1 parts .*archive\.zip: FileNotFoundError"):
        prepare_ground_truth(context)


def test_a_map_gives_the_class_where_it_has_one_and_is_named_where_it_can_not(tmp_path, client):
    """A table and an archive in two cells; the map has the class of the first alone."""
    rasterio = pytest.importorskip("rasterio")
    archive = write_folder(tmp_path / "archive", [sensor("A"), sensor("B", longitude=-98.0)])
    codes = np.full((20, 20), 8, "uint8")
    with rasterio.open(
        tmp_path / "climate.tif", "w", driver="GTiff", height=20, width=20, count=1, dtype="uint8",
        crs="EPSG:4326", transform=rasterio.Affine(0.02, 0, -99.0, 0, -0.02, 30.6),
    ) as file:  # fmt: skip
        file.write(codes, 1)
    chosen = {"url": str(tmp_path / "climate.tif"), "legend": "koppen_geiger"}
    context = context_of(
        tmp_path, client, truth={"class_maps": {"climate": chosen}}, urls=[archive]
    )
    prepare_ground_truth(context)
    found = open_ground_truth(context.paths.ground_truth)
    by_column = dict(zip(found["column"].values.tolist(), found["climate"].values, strict=True))
    assert [by_column[column] for column in sorted(by_column)] == ["Csa", ""]

    for wrong, error, text in (
        ({**chosen, "url": str(tmp_path / "none.tif")}, FileNotFoundError, "none.tif"),
        ({**chosen, "legend": "igbp", "url": str(archive / "x.tif")}, StageError, "class_maps"),
    ):
        (archive / "x.tif").write_text("no raster")
        context = context_of(
            tmp_path, client, truth={"class_maps": {"climate": wrong}}, urls=[archive]
        )
        with pytest.raises(error, match=text):
            prepare_ground_truth(context)
