"""The page of an assessment: the table of skill, the map of cells, and series packed into it."""

import base64
import json
import re
import shutil
import subprocess
import zlib
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from figures_support import ESTIMATES, GROUPS, N_CELLS, SUBJECT, series
from figures_support import assessment as make_assessment

from deepprofile import grid
from deepprofile.evaluation.assessment import Assessment, DailySeries
from deepprofile.evaluation.report import embedding, sections, station_map
from deepprofile.evaluation.report.blocks import Picture
from deepprofile.evaluation.report.inputs import ReportInputs
from deepprofile.evaluation.report.page import write_report
from deepprofile.evaluation.report.skill_table import skill_table

DRAWN = (*("spread_sections", "comparison_sections", "sections"),)
"""Modules that draw figures."""


@pytest.fixture(scope="module")
def assessment():
    return make_assessment()


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made and not rendered."""
    for name in DRAWN:
        module = __import__(f"deepprofile.evaluation.report.{name}", fromlist=["picture"])
        monkeypatch.setattr(
            module, "picture", lambda name, text, drawn, kind: Picture(name, text, kind, {})
        )


def unpack(text, length):
    """Rows of a packed text, by another way than the page's."""
    data = zlib.decompress(base64.b64decode(text))
    low, high = np.frombuffer(data, np.uint8).reshape(2, -1).astype(np.int64)
    steps = (low + 256 * high).reshape(-1, length)
    whole = np.cumsum(steps, axis=1) % 65536
    whole = np.where(whole >= 32768, whole - 65536, whole)
    return np.where(whole == -32768, np.nan, whole / 10000)


def payload(inputs):
    widget = station_map.station_map(inputs).widget
    assert "<" not in widget.data
    return json.loads(widget.data)


def test_packed_rows_come_back_to_a_ten_thousandth():
    random = np.random.default_rng(0)
    values = random.uniform(-1, 1, (7, 200))
    values[random.random(values.shape) < 0.2] = np.nan
    values[0, :3] = [3.2767, -3.2767, 99.0]
    values[1] = np.nan
    found = unpack(embedding.pack_rows(values), 200)
    np.testing.assert_allclose(found, np.clip(values, -3.2767, 3.2767), atol=0.5001e-4)
    assert np.array_equal(np.isnan(found), np.isnan(values))


def test_series_of_a_cell_are_reference_and_estimates_in_order():
    kept = series()
    at = [np.array([2, 3]), np.array([], dtype=np.int64), np.array([0])]
    packed = embedding.pack_series(kept, at)
    assert packed.step == 1 and packed.days == kept.days.tolist()
    rows = unpack(packed.texts[0], kept.days.size)
    every = (kept.truth, *kept.estimates.values())
    expected = np.stack([values[i] for i in (2, 3) for values in every])
    np.testing.assert_allclose(rows, expected, atol=0.5001e-4)
    assert packed.texts[1] == ""


def test_a_page_that_would_be_too_large_takes_means_over_longer_spans():
    kept = series(n_days=93)
    at = [np.arange(len(kept.table))]
    daily = embedding.pack_series(kept, at)
    packed = embedding.pack_series(kept, at, most=len(daily.texts[0]) // 4)
    assert packed.step == 5
    assert packed.days == kept.days[::5].tolist()
    rows = unpack(packed.texts[0], len(packed.days))
    frame = pd.DataFrame(kept.truth.T.astype(float)).groupby(np.arange(93) // 5).mean()
    np.testing.assert_allclose(rows[:: 1 + len(ESTIMATES)], frame.to_numpy().T, atol=0.5001e-4)
    assert embedding.pack_series(kept, at, most=10).texts == []


def test_days_that_are_not_there_do_not_shift_spans():
    days = np.array([100, 101, 117, 118])
    values = np.array([[0.1, 0.3, 0.5, np.nan]], dtype=np.float32)
    kept = DailySeries(pd.DataFrame({"row": [1]}), days, 1, values, {})
    groups = embedding._spans(days, 5)
    np.testing.assert_array_equal(groups, [0, 0, 1, 1])
    np.testing.assert_allclose(embedding._means(kept.truth, groups), [[0.2, 0.5]], atol=1e-7)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_unpacks_what_was_packed():
    values = np.array([[0.1234, np.nan, 0.5, -0.25], [1.0, 1.0001, np.nan, 0.0]])
    code = files("deepprofile.evaluation.report").joinpath("codec.js").read_text(encoding="utf-8")
    call = f"decodeRows({json.dumps(embedding.pack_rows(values))}, 4)"
    code += f"\n{call}.then((rows) => console.log(JSON.stringify(rows.map((r) => [...r]))));"
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout), dtype=float)
    np.testing.assert_allclose(found, values, atol=1e-9)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("name", ["tables.js", "codec.js", "map.js", "chart.js", "station_map.js"])
def test_scripts_have_no_fault_of_grammar(name):
    path = files("deepprofile.evaluation.report").joinpath(name)
    done = subprocess.run(["node", "--check", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_map_knows_every_cell_series_and_metric(assessment):
    data = payload(ReportInputs(subject=SUBJECT, assessment=assessment))
    assert len(data["cells"]["row"]) == N_CELLS
    first = data["cells"]["row"].index(400)
    assert data["cells"]["x"][first] == pytest.approx(grid.x_centers()[900], abs=0.1)
    assert data["cells"]["text"][first] == "NET, core"
    names = [metric["label"] for metric in data["metrics"]]
    assert names[0].startswith("R ") and "ubRMSE (m³ m⁻³)" in names
    assert len(data["series"]) == N_CELLS * len(GROUPS)
    estimates = [estimate["label"] for estimate in data["estimates"]]
    assert estimates == ["model", "SMAP L4", "climatology"]
    values = unpack(data["values"], len(data["series"]) * 3)
    metrics = assessment.metrics
    for place, (cell, _, group, _, _) in enumerate(data["series"]):
        rows = metrics[metrics["row"] == data["cells"]["row"][cell]]
        rows = rows[rows["group"] == data["groups"][group]].set_index("estimate")
        expected = rows.loc[list(ESTIMATES), "r"]
        np.testing.assert_allclose(values[0, 3 * place : 3 * place + 3], expected, atol=0.51e-4)
        assert values[-1, 3 * place] == 0.03  # 300 days in units of 10,000
    kept = [at for at, line in enumerate(data["series"]) if line[4]]
    assert len(kept) == len(assessment.series.table)
    rows = unpack(data["packed"]["texts"][first], len(data["packed"]["days"]))
    np.testing.assert_allclose(rows[0], assessment.series.truth[0], atol=0.51e-4)
    assert data["kept"] == [0, 1, 2]


def test_the_map_tells_the_split_of_a_cell(assessment):
    metrics = assessment.metrics.assign(split="validation")
    metrics.loc[metrics["row"] == 400, "split"] = "train"
    metrics.loc[metrics["row"] == 401, ["cell_class", "split"]] = "unqualified"
    inputs = ReportInputs(subject=SUBJECT, assessment=Assessment(metrics))
    cells = payload(inputs)["cells"]
    texts = dict(zip(cells["row"], cells["text"], strict=True))
    assert texts[400] == "NET, core, train" and texts[402] == "NET, core, validation"
    assert texts[401] == "NET, unqualified"
    assert "Cells of every split are shown" in station_map.station_map(inputs).widget.caption


def test_land_is_a_picture_behind_the_map(assessment):
    x, y = grid.x_centers()[880:1050], grid.y_centers()[390:460]
    land = xr.DataArray(np.ones((70, 170), bool), {"y": y, "x": x}, ("y", "x"))
    data = payload(ReportInputs(subject=SUBJECT, assessment=assessment, land=land))
    assert data["land"]["image"].startswith("data:image/png;base64,")
    west, east, south, north = data["land"]["edges"]
    assert west < data["window"][0] and south < north and east > west


def test_too_many_cells_are_said_to_be_so(assessment, monkeypatch):
    monkeypatch.setattr(station_map, "MAX_CELLS", 10)
    section = station_map.station_map(ReportInputs(subject=SUBJECT, assessment=assessment))
    assert section.widget is None and section.notes[0].startswith("44 cells are too many")


def test_captions_say_what_the_series_are(assessment, monkeypatch):
    def caption(**changes):
        parts = {"metrics": assessment.metrics} | changes
        inputs = ReportInputs(subject=SUBJECT, assessment=Assessment(**parts))
        return station_map.station_map(inputs).widget.caption

    assert caption().endswith("Series were not kept.")
    assert caption(series=assessment.series).endswith("Series are daily values.")
    coarse = series()
    coarse = DailySeries(coarse.table, coarse.days * 10, 10, coarse.truth, coarse.estimates)
    assert caption(series=coarse).endswith("Series are means over 10 days.")
    monkeypatch.setattr(
        station_map, "pack_series", lambda kept, at: embedding.pack_series(kept, at, most=2500)
    )
    assert "too large" in caption(series=assessment.series)


def test_table_of_skill_has_medians_quartiles_and_limits(assessment):
    table = skill_table(assessment.metrics, list(GROUPS), "A caption.")
    assert table.heads[2:4] == ["Core cells", "Bias (m³\N{NO-BREAK SPACE}m⁻³)"]
    assert [row[0].text for row in table.rows] == ["0-5 cm"] * 3 + ["0-100 cm"] * 3
    rows = assessment.metrics
    chosen = (rows["group"] == "0-5 cm") & (rows["estimate"] == SUBJECT)
    core, extra = (rows[chosen & (rows["cell_class"] == side)]["r"] for side in ("core", "extra"))
    first = table.rows[0]
    low, middle, high = core.quantile([0.25, 0.5, 0.75])
    assert first[4].text == f"{middle:.3f} [{low:.3f}, {high:.3f}]"
    assert first[4].best and not table.rows[2][4].best
    assert first[8].text.startswith(f"{extra.median():.3f} [")
    assert (first[2].text, first[7].text) == ("22", "22")
    assert first[9].text == "100 %: 0.080" and first[10].text == "100 %: 0.0200"


def test_an_estimate_in_fewer_core_cells_is_not_the_best_of_them(assessment):
    metrics = assessment.metrics
    gone = (metrics["estimate"] == SUBJECT) & (metrics["row"] == 400)
    metrics = metrics.assign(**{m: metrics[m].mask(gone) for m in ("r", "rmse", "ubrmse", "bias")})
    table = skill_table(metrics, ["0-5 cm"], "A caption.")
    model, smap, _ = table.rows
    assert (model[2].text, smap[2].text) == ("21", "22")
    assert not model[4].best and smap[4].best
    assert model[8].best and not smap[8].best  # extra cells: as many as the others
    assert not any(row[3].best for row in table.rows)  # the bias
    assert "the setting core_stations asks" in table.caption


def test_without_limits_or_core_cells_the_table_says_so(assessment):
    names = [name for name in assessment.metrics if name.endswith(("_low", "_high"))]
    extra = assessment.metrics[assessment.metrics["cell_class"] == "extra"].drop(columns=names)
    table = skill_table(extra, ["0-5 cm"], "A caption.")
    assert table.heads[-1] == "R on extra cells"
    assert [cell.text for cell in table.rows[0][2:7]] == ["0", "–", "–", "–", "–"]


EXPECTED = {
    "metrics": ["brief", "results_stations", "cells", "distributions", "skill_maps", "classes"],
    "pairs": ["pairs"],
    "intercomparison": ["products"],
    "density": ["density"],
}


def test_each_part_has_its_sections_and_no_other(assessment, undrawn):
    for name in ("pairs", "intercomparison", "density", "metrics"):
        empty = Assessment(assessment.metrics.iloc[:0])
        part = {name: getattr(assessment, name)}
        shown = Assessment(**{"metrics": empty.metrics} | part)
        found = sections.all_sections(ReportInputs(subject=SUBJECT, assessment=shown))
        assert [section.name for section in found] == EXPECTED[name]
    with_series = Assessment(assessment.metrics, series=assessment.series)
    found = sections.all_sections(ReportInputs(subject=SUBJECT, assessment=with_series))
    assert "series" in [section.name for section in found]


def test_a_whole_assessment_makes_every_figure_with_a_caption(assessment, undrawn):
    found = sections.all_sections(ReportInputs(subject=SUBJECT, assessment=assessment))
    names = [picture.name for section in found for picture in section.pictures]
    assert len(set(names)) == len(names)
    kinds = {name.split("_")[0] for name in names}
    assert kinds == {"violins", "density", "series", "map", "classes", "pairs", "products"}
    assert all(len(picture.caption) > 60 for section in found for picture in section.pictures)


def test_the_page_holds_the_map_and_asks_nothing_from_outside(assessment, tmp_path):
    path = tmp_path / "report.html"
    metrics = assessment.metrics.assign(network="</script><b>net")
    small = Assessment(metrics[metrics["group"] == "0-5 cm"], series=assessment.series)
    inputs = ReportInputs(subject=SUBJECT, assessment=small, title="Map")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "deepprofile.evaluation.report.page.all_sections",
            lambda inputs: [station_map.station_map(inputs)],
        )
        write_report(str(path), inputs)
    html = path.read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert not re.search(r"@import|url\(|<link|<script src|<iframe|fetch\(|XMLHttp", html)
    addresses = set(re.findall(r"https?://[^\s\"]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert html.count("<script") == 2 and "<noscript>" in html
    data = re.search(r'<script type="application/json">(.*?)</script>', html, re.S).group(1)
    assert json.loads(data)["cells"]["text"][0] == "</script><b>net, core"
    for name in ("codec.js", "map.js", "chart.js", "station_map.js", "report.css"):
        source = files("deepprofile.evaluation.report").joinpath(name)
        assert source.read_text(encoding="utf-8") in html
