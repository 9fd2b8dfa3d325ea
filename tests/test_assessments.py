"""Assessments: what a file may say, the whole command on small archives, and what it names."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from station_support import LATITUDE, LONGITUDE, SensorFile, write_zip
from test_store_read import make

from deepprofile import cli, grid
from deepprofile.assessments import load_definition, run, run_assessment, tables
from deepprofile.documents import RecipeError
from deepprofile.evaluation.assess import Settings, assess
from deepprofile.evaluation.estimates.base import LayerEstimate, MeanEstimate, ProfileEstimate
from deepprofile.evaluation.estimates.neighbour import NeighbourEstimate
from deepprofile.evaluation.estimates.sensor import SensorEstimate
from deepprofile.evaluation.reference.series import label_cells
from deepprofile.profile import Layer
from deepprofile.stages import stations
from deepprofile.stages.context import StageError
from deepprofile.stages.stations import open_ground_truth
from deepprofile.store import (
    Region,
    coefficients_template,
    collocation_template,
    soil_moisture_template,
)
from deepprofile.store.layout import TILE_COLUMNS, TILE_ROWS

ASSESSMENTS = Path(__file__).parent.parent / "pipelines" / "assessments"
START, N_DAYS = "2015-01-01", 1200
FIRST_BLOCK, CUBE_DAYS = 10, 70  # from 2016-02-14
LAYERS = (Layer("era5_land", 0.0, 0.1), Layer("era5_land", 0.1, 1.0))
WEIGHTS = {"smap_l4": 0.7, "own": 0.1, "gldas": 0.2}
CELLS = {"A": LONGITUDE, "B": LONGITUDE + 0.2, "C": LONGITUDE + 0.5}
SMALL = {
    "name": "small",
    "root": "root",
    "stations": {"urls": ["none.zip"]},
    "estimates": [
        {"name": "reading", "kind": "sensor"},
        {"name": "next", "kind": "neighbour", "max_distance_km": 25},
        {"name": "layers", "kind": "cube", "url": "{root}/layers"},
        {"name": "own", "kind": "table", "url": "own.csv"},
    ],
    "subject": "reading",
}


def definition_of(folder: Path, **changes) -> Path:
    path = folder / "assessment.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "root": str(folder / "root"), **changes}))
    return path


def noisy(seed: int, n: int = N_DAYS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    season = 0.05 * np.sin(np.arange(n) / 58.1)
    return np.round(0.25 + season + 0.02 * rng.normal(size=n), 4)


def sensor(station: str, depth: float, seed: int, **options) -> SensorFile:
    options = {"longitude": CELLS.get(station, LONGITUDE), "start": START, "step": "D"} | options
    return SensorFile(noisy(seed), station=station, depth=depth, **options)


def cell_of(station: str) -> tuple[int, int]:
    row, column = grid.cell_index(CELLS[station], LATITUDE)
    return int(row), int(column)


def values_in_cells(seed: int, parts: int) -> np.ndarray:
    """What cubes hold in the cells, of the last one nothing; shape (cells, days, parts)."""
    rng = np.random.default_rng(seed)
    values = 0.2 + 0.05 * rng.normal(size=(len(CELLS), CUBE_DAYS, parts))
    values[-1] = np.nan
    return values.astype(np.float32)


def cube_of(url: Path, template, array: str, seed: int, region: Region) -> str:
    shape = (CUBE_DAYS, template.arrays[0].shape[1], *region.shape)
    found = np.full(shape, np.nan, np.float32)
    for cell, values in zip(CELLS, values_in_cells(seed, shape[1]), strict=True):
        row, column = cell_of(cell)
        found[:, :, row - region.rows.start, column - region.columns.start] = values
    return make(str(url), template, CUBE_DAYS, {array: found})


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """An archive, a cube of layers, one of profiles, and a table."""
    folder = tmp_path_factory.mktemp("sources")
    files = [
        sensor(name, depth, 10 * i + j)
        for i, name in enumerate(CELLS)
        for j, depth in enumerate((0.05, 0.1, 0.2, 0.5))
    ]
    archive = write_zip(folder / "archive.zip", files)
    row, column = cell_of("A")
    tile = (row // TILE_ROWS, column // TILE_COLUMNS)
    region = Region((tile[0], tile[0] + 1), (tile[1], tile[1] + 1))
    layers = soil_moisture_template(
        "era5_land", region, LAYERS, first_block=FIRST_BLOCK, keep_bits=None
    )
    profiles = coefficients_template(
        region, flag_attributes={}, n_coefficients=3, first_block=FIRST_BLOCK, keep_bits=None
    )
    weights = np.full((len(WEIGHTS), *region.shape), np.nan, np.float32)
    weights[:, row - region.rows.start, column - region.columns.start] = list(WEIGHTS.values())
    collocation = collocation_template(region, list(WEIGHTS), flag_attributes={})
    frame = pd.DataFrame({"time": pd.date_range(START, periods=N_DAYS).strftime("%Y-%m-%d")})
    frame = frame.assign(
        longitude=CELLS["B"], latitude=LATITUDE, top=0.0, bottom=1.0, soil_moisture=noisy(77)
    )
    frame.to_csv(folder / "own.csv", index=False)
    return {
        "archive": archive,
        "layers": cube_of(folder / "layers", layers, "soil_moisture", 1, region),
        "profiles": cube_of(folder / "profiles", profiles, "coefficients", 2, region),
        "weights": make(str(folder / "weights"), collocation, 0, {"weight": weights}),
        "table": folder / "own.csv",
    }


def undrawn(patch: pytest.MonkeyPatch) -> list:
    """Keep what the report would show: drawing it takes longer than all else."""
    shown: list = []

    def keep(url, inputs):
        shown.append(inputs)
        return url

    patch.setattr(run, "write_report", keep)
    return shown


@pytest.fixture(scope="module")
def done(sources, tmp_path_factory, client):
    """The whole command, a cell a job."""
    folder = tmp_path_factory.mktemp("assessment")
    path = definition_of(
        folder,
        stations={"urls": [str(sources["archive"])]},
        estimates=[
            {"name": "profiles", "kind": "cube", "url": sources["profiles"]},
            {"name": "layers", "kind": "cube", "url": sources["layers"]},
            {"name": "own", "kind": "table", "url": str(sources["table"])},
            {"name": "reading", "kind": "sensor"},
            {"name": "next", "kind": "neighbour", "max_distance_km": 25},
        ],
        baselines={
            "mean": ["profiles", "layers"],
            "tc_mean": {
                "url": sources["weights"],
                "members": {"gldas": "layers", "own": "profiles"},
            },
        },
        subject="profiles",
        products=["layers"],
        evaluate={"min_cells": 2},
    )
    definition = load_definition(path)
    console = Console(record=True, width=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CELLS_PER_JOB", 1)
        shown = undrawn(patch)
        result = run_assessment(definition, client, console)
    return definition, result, console.export_text(), shown[0]


def test_jobs_give_what_one_call_gives_on_estimates_made_by_hand(done, sources):
    definition, result, *_ = done
    truth = open_ground_truth(f"{definition.root}/ground_truth.zarr").load()
    cells = pd.DataFrame([cell_of(name) for name in CELLS], columns=["row", "column"])
    truth = label_cells(truth, cells.assign(split="qualified"))
    time = np.datetime64("2015-03-31") + 32 * FIRST_BLOCK + np.arange(CUBE_DAYS)
    row, column = np.array([cell_of(name) for name in CELLS]).T
    bounds = [(layer.top, layer.bottom) for layer in LAYERS]
    layers = LayerEstimate("layers", row, column, time, bounds, values_in_cells(1, 2))
    profiles = ProfileEstimate("profiles", row, column, time, values_in_cells(2, 3))
    frame = pd.read_csv(sources["table"])
    weights = np.full((3, 2), np.nan)  # the cube has those of the first cell alone
    weights[0] = WEIGHTS["gldas"], WEIGHTS["own"]
    own = LayerEstimate(
        *("own", row[1:2], column[1:2], frame["time"].to_numpy("datetime64[D]"), [(0.0, 1.0)]),
        frame["soil_moisture"].to_numpy(np.float32)[None, :, None],
    )
    estimates = [
        *(profiles, layers, own, SensorEstimate.of(truth, name="reading")),
        NeighbourEstimate.of(truth, 25.0, "next"),
        MeanEstimate.of("mean", [profiles, layers]),
        MeanEstimate.of("tc_mean", [layers, profiles], weights),
    ]
    expected = assess(estimates, {"stations": truth}, Settings("profiles", products=("layers",)))
    found = result.assessment
    pd.testing.assert_frame_equal(found.metrics, expected.metrics)
    pd.testing.assert_frame_equal(found.intercomparison, expected.intercomparison)
    assert found.density.keys() == expected.density.keys()
    np.testing.assert_array_equal(found.series.truth, expected.series.truth)
    for name, values in expected.series.estimates.items():
        np.testing.assert_array_equal(found.series.estimates[name], values)
    lines = found.metrics.set_index(["estimate", "row", "column"]).sort_index()
    assert lines.loc[("profiles", *cell_of("A")), "rmse"].notna().all()
    assert set(lines.loc[("own", *cell_of("A")), "reason"]) == {"the estimate lacks this cell"}
    assert not (found.metrics.query("estimate == 'reading'")["top"] == 0.1).any()
    assert lines.loc[("next", *cell_of("B")), "rmse"].notna().all()
    assert lines.loc[("next", *cell_of("C")), "rmse"].isna().all()


def test_any_number_of_groups_gives_the_same_and_nothing_is_read_again(done, client, monkeypatch):
    definition, result, *_ = done

    def never(*args):
        raise AssertionError("read again")

    monkeypatch.setattr(stations, "_read", never)
    monkeypatch.setattr(tables, "store_table", never)
    console = Console(quiet=True)
    url = f"{definition.root}/ground_truth.zarr"
    truth = run._ground_truth(definition, url, client, console)
    files = [one for one in definition.estimates if one.kind == "table"]
    assert tables.store_tables(files, definition.root, url, client, console) == []
    sources = run.sources_of(definition)
    again = run._compare(definition, sources, url, truth, client, console)
    pd.testing.assert_frame_equal(again.metrics, result.assessment.metrics)
    pd.testing.assert_frame_equal(again.intercomparison, result.assessment.intercomparison)
    np.testing.assert_array_equal(again.series.truth, result.assessment.series.truth)
    changed = definition.model_copy(update={"period": definition.period.model_copy()})
    changed = changed.model_copy(
        update={"ground_truth": changed.ground_truth.model_copy(update={"min_days": 99})}
    )
    with pytest.raises(AssertionError, match="read again"):
        run._ground_truth(changed, url, client, console)


def test_tables_and_report_are_written_and_the_medians_printed(done):
    definition, result, text, shown = done
    folder = Path(definition.root) / "report"
    metrics = pd.read_csv(folder / "metrics.csv", keep_default_na=False, na_values=[""])
    found = result.assessment.metrics
    np.testing.assert_allclose(metrics["rmse"], found["rmse"])
    assert metrics["estimate"].tolist() == found["estimate"].tolist()
    cells = pd.read_csv(folder / "cells.csv")
    assert cells["split"].tolist() == ["qualified"] * 3
    summary = pd.read_csv(folder / "summary.csv")
    assert summary["n_cells"].max() == 3 and set(summary["split"]) == {"qualified"}
    assert (folder / "intercomparison.csv").exists()
    assert shown.assessment is result.assessment and shown.subject == "profiles"
    assert result.report == str(folder / "report.html")
    assert "2018-04-14" in shown.subtitle
    assert "Medians over core and extra cells" in text and "climatology" in text


@pytest.mark.parametrize("path", sorted(ASSESSMENTS.glob("*.yaml")), ids=lambda path: path.name)
def test_committed_assessments_are_valid(path):
    definition = load_definition(path)
    assert definition.subject in definition.names
    assert Path(definition.root).is_absolute()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"estimates": [{"name": "a", "kind": "magic"}]}, "tags: 'sensor', 'neighbour', 'cube'"),
        ({"estimates": []}, "estimates: found"),
        (
            {"estimates": [{"name": "a", "kind": "neighbour", "depth": 0.1}]},
            r"neighbour\.depth: unknown key. Allowed here: kind, max_distance_km, name",
        ),
        (
            {"estimates": [{"name": "a", "kind": "sensor", "depth": 0.35}]},
            r"found 0\.35 m; expected metres within one of 0-5 cm",
        ),
        (
            {"subject": "nobody"},
            "subject: found nobody; expected one of reading, next, layers, own",
        ),
        ({"subject": "climatology"}, "subject: found climatology"),
        ({"products": ["reading"]}, "products: found reading; expected one of layers, own"),
        ({"baselines": {"mean": ["other"]}}, "baselines.mean: found other; expected"),
        (
            {"estimates": [{"name": "climatology", "kind": "sensor"}], "subject": "climatology"},
            "climatology: the name of a baseline",
        ),
        ({"period": {"start": "2019-01-01", "end": "2018-01-01"}}, "is before start"),
        ({"period": {"start": 2019}}, "expected a day as YYYY-MM-DD"),
        ({"stations": {}}, "neither urls nor tables"),
        ({"root": None}, "root"),
        ({"evaluate": {"min_dais": 3}}, "min_dais: unknown key. Allowed here: level, min_cells"),
        ({"stations": {"urls": ["{roof}/a.zip"]}}, "unknown placeholder"),
        ({"stations": {"urls": ["https://me:secret@host/a.zip"]}}, r"stations\.urls\[0\]"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, changes, words):
    with pytest.raises(RecipeError, match=words) as error:
        load_definition(definition_of(tmp_path, **changes))
    assert "secret" not in str(error.value)


def test_the_root_can_be_given_and_stands_in_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    definition = load_definition(definition_of(tmp_path), "elsewhere")
    assert definition.root == str(tmp_path / "elsewhere")
    assert definition.estimates[2].url == f"{definition.root}/layers"
    assert definition.names == ["reading", "next", "layers", "own"]


@pytest.fixture
def command(client, monkeypatch, capsys):
    """Run the command on a file; its exit code and what it printed."""

    def run_command(path: Path) -> tuple[int, str]:
        here = ["--cluster", client.scheduler.address]
        monkeypatch.setattr(sys, "argv", ["deepprofile", "assess", str(path), *here])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return stopped.value.code, " ".join((printed.out + printed.err).split())

    return run_command


def own_table(path: Path, **changes) -> str:
    frame = pd.DataFrame({"time": pd.date_range("2016-01-01", periods=60).strftime("%Y-%m-%d")})
    frame = frame.assign(longitude=LONGITUDE, latitude=LATITUDE, top=0.0, bottom=0.1)
    frame.assign(soil_moisture=0.2).assign(**changes).to_csv(path, index=False)
    return str(path)


def estimates_of(**paths) -> list[dict]:
    kinds = {"cube": "cube", "layers": "cube"}
    return [{"name": name, "kind": kinds.get(name, "table"), "url": str(path)}
            for name, path in paths.items()]  # fmt: skip


def test_what_is_not_there_or_wrong_stops_the_command_by_name(tmp_path, sources, command):
    """Each is one message and exit code 2, before anything is compared."""
    there = {"stations": {"urls": [str(sources["archive"])]}}
    percent = own_table(tmp_path / "percent.csv", soil_moisture=23.0)
    deep = own_table(tmp_path / "deep.csv", bottom=10.0)
    beyond = own_table(tmp_path / "beyond.csv", latitude=88.0)
    later = own_table(tmp_path / "later.csv", time=pd.date_range("2030-01-01", periods=60))
    cases = [
        ({"stations": {"urls": [str(tmp_path / "none.zip")]}}, {}, "no station archive at .*none"),
        (there, {"cube": tmp_path / "none"}, "none"),
        (there, {"own": tmp_path / "none.csv"}, "estimate own: there is no table at .*none.csv"),
        (there, {"own": percent}, "1 of 1 tables can't be used: estimate own: .*percent"),
        (there, {"own": deep, "two": beyond}, "2 of 2 .*own: .*centimetres.*two: .*grid ends"),
        (there, {"own": later}, "own: has 1 of 3 station cells and 0 of 1200 days"),
    ]
    for where, paths, words in cases:
        listed = estimates_of(**paths) or [{"name": "reading", "kind": "sensor"}]
        path = definition_of(tmp_path, **where, estimates=listed, subject=listed[0]["name"])
        code, text = command(path)
        assert code == 2
        assert pd.Series(text).str.contains(f"error: .*{words}").all(), (words, text)


def test_weights_are_those_of_the_products_that_are_named(tmp_path, sources, client):
    cubes = [
        {"name": name, "kind": "cube", "url": sources[name]} for name in ("layers", "profiles")
    ]
    for url, words in ((sources["weights"], "smap_l4, own, gldas"), (sources["layers"], "nothing")):
        path = definition_of(
            tmp_path,
            stations={"urls": [str(sources["archive"])]},
            estimates=cubes,
            baselines={"tc_mean": {"url": url, "members": {"era5_land": "layers"}}},
            subject="profiles",
        )
        with pytest.raises(StageError, match=f"no weight of era5_land; it has those of {words}"):
            run_assessment(load_definition(path), client, Console(quiet=True))


def test_products_need_layers(tmp_path, sources, client):
    depths = own_table(tmp_path / "depths.csv", top=0.1)
    for url, kind in ((sources["profiles"], "cube"), (depths, "table")):
        path = definition_of(
            tmp_path,
            stations={"urls": [str(sources["archive"])]},
            estimates=[SMALL["estimates"][0], {"name": "other", "kind": kind, "url": url}],
            products=["other"],
        )
        with pytest.raises(StageError, match="products: other has no layers"):
            run_assessment(load_definition(path), client, Console(quiet=True))


def test_stations_that_give_nothing_are_named(tmp_path, command):
    archive = write_zip(tmp_path / "a.zip", [sensor("A", 0.1, 1, flags=["M"] * N_DAYS)])
    path = definition_of(
        tmp_path, stations={"urls": [str(archive)]}, estimates=SMALL["estimates"][:1]
    )
    code, text = command(path)
    assert code == 2
    assert "no sensor gives a series to compare with" in text and "found M 1200" in text
    path.write_text(path.read_text().replace("subject", "period: {start: 2030-01-01}\nsubject"))
    code, text = command(path)
    assert code == 2 and "with from 2030-01-01 to the last." in text


def test_flawed_input_is_named_and_the_rest_is_compared(tmp_path, command, monkeypatch):
    """One cell, two archives with the same station, flawed sensors and an estimate elsewhere."""
    shown = undrawn(monkeypatch)
    good = [sensor("A", depth, seed) for seed, depth in enumerate((0.05, 0.1, 0.5))]
    polar = sensor("Polar", 0.1, 4, latitude=88.0)
    first = write_zip(tmp_path / "first.zip", [*good, polar])
    second = write_zip(tmp_path / "second.zip", [sensor("A", 0.1, 9)])
    stamps = pd.date_range("2016-01-01", periods=300, freq="D").strftime("%Y-%m-%dT%H:%M-06:00")
    frame = pd.DataFrame({"time": stamps, "network": "OWN", "latitude": LATITUDE})
    frame = frame.assign(longitude=LONGITUDE, soil_moisture=0.2)
    parts = [
        frame.assign(station="Wet", depth_from=0.2, depth_to=0.2, soil_moisture=31.0),
        frame.assign(station="Deep", depth_from=20, depth_to=20),
        frame.assign(station="Twice", depth_from=0.2, depth_to=0.2),
        frame.assign(station="Twice", depth_from=0.2, depth_to=0.2, soil_moisture=0.3),
    ]
    pd.concat(parts).to_csv(tmp_path / "readings.csv", index=False)
    elsewhere = own_table(tmp_path / "elsewhere.csv", longitude=20.0)
    path = definition_of(
        tmp_path,
        stations={"urls": [str(first), str(second)], "tables": [str(tmp_path / "readings.csv")]},
        estimates=[
            *SMALL["estimates"][:2],
            {"name": "elsewhere", "kind": "table", "url": elsewhere},
        ],
    )
    code, text = command(path)
    assert code == 0, text
    for words in (
        "the same sensor as",
        "the grid ends at 85.04 degrees",
        "it looks like percent",
        "they look like centimetres",
        "readings that repeat a time with another value: 300",
        "estimate elsewhere: has 0 of 1 station cells",
        "estimate next: covers no depth of the ground truth",
    ):
        assert words in text, (words, text)
    folder = tmp_path / "root" / "report"
    summary = pd.read_csv(folder / "summary.csv")
    assert summary["few_cells"].all() and summary["n_cells"].max() == 1
    metrics = pd.read_csv(folder / "metrics.csv", keep_default_na=False)
    lines = metrics[metrics["estimate"] == "elsewhere"]
    assert set(lines["reason"]) == {"the estimate lacks this cell"}
    attributes = open_ground_truth(str(tmp_path / "root" / "ground_truth.zarr")).attrs
    assert len(json.loads(attributes["rejected"])) == len(shown[0].rejected_stations) == 4
    assert shown[0].station_notes["note"].str.contains("estimate elsewhere").sum() == 1


def test_an_estimate_that_shares_no_day_is_named_and_alone_refused(tmp_path, sources, client):
    later = own_table(tmp_path / "later.csv", time=pd.date_range("2030-01-01", periods=60))
    path = definition_of(
        tmp_path,
        stations={"urls": [str(sources["archive"])]},
        estimates=[*SMALL["estimates"][:1], {"name": "later", "kind": "table", "url": later}],
    )
    definition = load_definition(path)
    console = Console(quiet=True)
    url = f"{definition.root}/ground_truth.zarr"
    truth = run._ground_truth(definition, url, client, console)
    files = [one for one in definition.estimates if one.kind == "table"]
    tables.store_tables(files, definition.root, url, client, console)
    found = run.sources_of(definition)
    assert run._overlaps(definition, found, truth) == {
        "later": "estimate later: has 1 of 3 station cells and 0 of 1200 days, so nothing of it "
        "can be compared"
    }
    with pytest.raises(StageError, match="estimate later: has 1 of 3"):
        run._overlaps(definition, found[1:], truth)
