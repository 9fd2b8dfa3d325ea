"""The report and its figures, findings and tables."""

import base64
import re
from io import StringIO

import fsspec
import hypothesis
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from pyproj import Transformer
from rich.console import Console

from deepprofile import grid
from deepprofile.evaluation.assessment import Assessment
from deepprofile.evaluation.figures import maps, weights
from deepprofile.evaluation.figures import plots as figures
from deepprofile.evaluation.figures.plots import ExampleProfile
from deepprofile.evaluation.figures.violins import violins
from deepprofile.evaluation.report import findings, judged, sections
from deepprofile.evaluation.report.blocks import plain_table, results_table
from deepprofile.evaluation.report.page import ReportInputs, console_table, write_report
from deepprofile.evaluation.skill.summaries import summarise
from deepprofile.profile import Layer

PRODUCTS = ["smap_l4", "era5_land", "gldas"]
SHIFTS = {"smap_l4": 0.0, "era5_land": -0.06, "gldas": -0.07, "mean": 0.02, "deepprofile": 0.05}
GROUPS = {"0-5 cm": (0.0, 0.05), "20 cm": (0.2, 0.2), "0-100 cm": (0.0, 1.0)}
ROWS, COLUMNS = slice(700, 724), slice(1500, 1530)
FLAG_MEANINGS = "valid too_few_days non_positive_covariance negative_error_variance_of_era5_land"


def plane(values, dims=("y", "x")):
    """Values on a piece of the grid."""
    coords = {"y": grid.y_centers()[ROWS], "x": grid.x_centers()[COLUMNS]}
    return xr.DataArray(values, dims=dims, coords=coords)


@pytest.fixture(scope="module")
def land():
    mask = np.zeros((24, 30), dtype=bool)
    mask[8:18, 10:20] = True
    mask[8:11, 10:13] = False
    return plane(mask)


@pytest.fixture(scope="module")
def collocation(land):
    draws = np.random.default_rng(3).dirichlet((4, 3, 2), size=land.shape)
    weight = plane(np.moveaxis(draws, -1, 0), ("product", "y", "x")).where(land)
    flag = np.zeros(land.shape, dtype=np.uint8)
    flag[12, 12:15], flag[13, 12] = 1, 3
    attributes = {"flag_values": np.arange(4, dtype=np.uint8), "flag_meanings": FLAG_MEANINGS}
    return xr.Dataset(
        {"weight": weight, "flag": plane(flag).assign_attrs(attributes)},
        coords={"product": PRODUCTS},
    )


@pytest.fixture(scope="module")
def metrics():
    random = np.random.default_rng(5)
    lines = []
    for reference, n_cells in (("truth", 24), ("stations", 6)):
        for group, (top, bottom) in GROUPS.items():
            for cell in range(n_cells):
                for estimate, shift in SHIFTS.items():
                    behind = 0.2 if (estimate, group) == ("deepprofile", "20 cm") else 0.0
                    r = 0.85 + shift - behind + random.normal(0, 0.004)
                    lines.append(
                        {
                            "reference": reference,
                            "estimate": estimate,
                            "group": group,
                            "top": top,
                            "bottom": bottom,
                            "row": 700 + cell,
                            "column": 1500,
                            "cell_class": "core",
                            "split": "train" if cell % 2 else "validation",
                            "n_stations": 1,
                            "n": 300,
                            "bias": random.normal(0, 0.02),
                            "r": r,
                            "rmse": 0.05,
                            "ubrmse": 0.04 * np.sqrt(1 - r**2),
                            "anomaly_r": r - 0.2,
                            "r_with_smap": 0.9,
                            "share_below_0": 0.0,
                            "share_above_06": 0.0,
                        }
                    )
    return pd.DataFrame(lines)


@pytest.fixture(scope="module")
def summary(metrics):
    rows = metrics[(metrics["reference"] == "truth") & (metrics["split"] != "train")]
    return summarise(rows, by=("reference", "group"))


@pytest.fixture(scope="module")
def history():
    epochs = np.arange(1, 4)
    terms = dict.fromkeys(("total", "surface", "root", "smoothness"), 1.0 / epochs)
    terms["negative"] = np.array([0.2, 0.0, 0.0])
    both = [pd.DataFrame({"epoch": epochs, "split": s, **terms}) for s in ("train", "validation")]
    return pd.concat(both, ignore_index=True)


@pytest.fixture(scope="module")
def example():
    layers = [Layer("smap_l4", 0, 0.05), Layer("smap_l4", 0, 1), Layer("gldas", 0, 0.1),
              Layer("gldas", 0.1, 0.4), Layer("gldas", 0.4, 1)]  # fmt: skip
    return ExampleProfile(
        "row 700, column 1500",
        np.array([0.2, 0.1, -0.05]),
        layers,
        [0.2, 0.23, 0.19, 0.21, 0.25],
        station_depths=[0.05, 0.5],
        station_values=[0.2, 0.26],
    )


@pytest.fixture(scope="module")
def full(collocation, metrics, history, example, land):
    few = metrics[metrics["estimate"].isin(["deepprofile", "mean"])]
    few = few[few["group"] != "20 cm"]
    field = plane(np.random.default_rng(1).uniform(0.1, 0.4, land.shape)).where(land)
    return ReportInputs(
        title="A test <Earth>",
        assessment=Assessment(few),
        collocation=collocation,
        land=land,
        error_recovery=pd.DataFrame({"product": PRODUCTS, "median_ratio": [1.0, 0.98, 1.02]}),
        history=history,
        profiles=[example],
        maps={"5 cm": field, "50 cm": field + 0.02},
        set_aside=pd.DataFrame({"url": ["s3://bucket/bad.h5"], "reason": ["truncated"]}),
        out_of_range=pd.DataFrame({"variable": ["surface_temp"], "count": [3]}),
        short_days=pd.DataFrame(columns=["product", "day"]),
        recipe="name: <script>alert(1)</script>",
        versions={"numpy": "2.4.0"},
        missing={"rejected_stations": "no station archive was read"},
    )


@pytest.fixture(scope="module")
def written(full):
    url = "memory://run/report/index.html"
    assert write_report(url, full) == url
    memory = fsspec.filesystem("memory")
    return memory, memory.cat("/run/report/index.html").decode()


def test_report_asks_nothing_from_outside(written):
    html = written[1]
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert not re.search(r"@import|url\(|<link|<script src|<iframe|fetch\(", html)


def test_figures_lie_beside_the_report_and_inside_it(written):
    memory, html = written
    names = {path.rsplit("/", 1)[1] for path in memory.ls("/run/report/figures", detail=False)}
    expected = {"weights", "maps", "violins_truth", "violins_stations", "loss", "profiles"}
    expected |= {"map_truth", "map_stations"}
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        assert {name for name in names if name.endswith(kind)} == {f"{n}.{kind}" for n in expected}
        for name in (name for name in names if name.endswith(kind)):
            assert memory.cat(f"/run/report/figures/{name}").startswith(magic)
    image = memory.cat("/run/report/figures/weights.png")
    assert base64.b64encode(image).decode() in html


def test_what_is_given_is_shown_as_text(written):
    html = written[1]
    assert "A test &lt;Earth&gt;" in html
    assert "<script>alert(1)" not in html
    assert "name: &lt;script&gt;alert(1)" in html
    for text in ("s3://bucket/bad.h5", "truncated", "surface_temp", "too few days", "2.4.0"):
        assert text in html


def test_a_missing_part_is_named_with_its_reason(written):
    text = "Stations and sensors not used: not available because no station archive was read."
    assert text in written[1]


def test_a_report_leaves_out_what_nobody_misses(tmp_path):
    path = tmp_path / "new" / "report.html"
    write_report(str(path), ReportInputs(missing={"history": "training has not run"}))
    html = path.read_text(encoding="utf-8")
    assert "Loss curves: not available because training has not run." in html
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Training"]
    assert "<img" not in html and html.count("not available") == 1


def test_every_part_that_is_missed_is_named_with_its_reason():
    names = ("assessment", "profiles", "maps", "history", "collocation", "error_recovery",
             "set_aside", "out_of_range", "short_days", "rejected_stations", "station_notes",
             "versions", "recipe")  # fmt: skip
    inputs = ReportInputs(missing={name: f"there is no {name}" for name in names})
    said = [text for section in sections.all_sections(inputs) for text in section.missing]
    for name in names:
        assert [text for text in said if text.endswith(f"because there is no {name}.")], name


def test_only_training_cells_leave_no_results(metrics):
    trained = metrics[metrics["split"] == "train"]
    inputs = ReportInputs(assessment=Assessment(trained))
    said = [text for section in sections.all_sections(inputs) for text in section.missing]
    for name in ("the known truth", "stations"):
        assert f"Results against {name}: not available because no validation cell" in str(said)


def test_cells_of_another_split_do_not_count(metrics):
    other = metrics.assign(split="candidate", row=metrics["row"] + 100)
    inputs = ReportInputs(assessment=Assessment(pd.concat([metrics, other])))
    assert "on 12 validation and" in sections.brief(inputs).points[0]


def test_qualified_cells_count_like_those_of_validation(metrics):
    names = {700: "unqualified", 701: "candidate", 702: "train", 703: "validation"}
    every = metrics.assign(split=metrics["row"].map(names).fillna("qualified"))
    without = every[every["row"] > 703]
    for table, n_cells, called in (
        (every, 21, "validation and qualified cells"),
        (without, 20, "qualified cells"),
    ):
        inputs = ReportInputs(assessment=Assessment(table))
        assert judged.judged(inputs)["truth"]["row"].nunique() == n_cells
        assert judged.cells_judged(inputs) == called


@pytest.mark.parametrize(
    ("parts", "total"),
    [
        ({"train": 1, "validation": 2, "qualified": 4, "unqualified": 8, "": 16}, 6),
        ({"unqualified": 1, "": 2}, 2),
        ({"unqualified": 1}, None),
    ],
)
def test_days_of_the_cells_that_count_are_added(parts, total):
    key = ("deepprofile", "20 cm")
    density = {("truth", part, *key): np.full((2, 2), n) for part, n in parts.items()}
    density["truth", "validation" if "train" in parts else "", "mean", "20 cm"] = np.zeros((2, 2))
    found = judged.judged_density(
        ReportInputs(assessment=Assessment(pd.DataFrame(), density=density))
    )
    assert {key: value.tolist() for key, value in found.items()} == (
        {} if total is None else {("truth", *key): [[total] * 2] * 2}
    )


def test_without_splits_all_qualified_cells_are_judged(metrics):
    every = metrics.assign(split="")
    every.loc[every["row"] == 700, "cell_class"] = "unqualified"
    inputs = ReportInputs(assessment=Assessment(every))
    rows = judged.judged(inputs)["truth"]
    assert rows["row"].nunique() == 23
    assert judged.cells_judged(inputs) == "cells"
    (table,) = sections.brief(inputs).tables
    assert table.caption.endswith("medians over cells.")


def test_depths_at_which_others_are_better_are_named(summary):
    sentences = findings.compare_depths(summary, "deepprofile")
    assert findings.depths_behind(summary, "deepprofile") == ["20 cm"]
    assert len(sentences) == 2
    assert sentences[0].startswith("20 cm: R of plain mean (")
    assert "ERA5-Land" in sentences[0] and "ubRMSE of" in sentences[0]
    assert sentences[1].endswith("at: 0-5 cm, 0-100 cm.")


def fewer_cells(summary, estimate, groups):
    """A summary in which an estimate has metrics in one cell less at some depths."""
    there = (summary["estimate"] == estimate) & summary["group"].isin(groups)
    return summary.assign(n_cells=summary["n_cells"] - there)


def test_an_estimate_with_fewer_cells_is_not_ranked(summary):
    groups = ["20 cm", "0-100 cm"]
    fewer = fewer_cells(fewer_cells(summary, "mean", groups), "gldas", groups)
    sentences = findings.compare_depths(fewer, "deepprofile")
    assert sentences[0].startswith("20 cm: R of SMAP L4 (") and "plain mean" not in sentences[0]
    assert sentences[-1].startswith(
        "Metrics in fewer cells than others: GLDAS and plain mean at 20 cm, 0-100 cm. "
    )
    columns = [findings.RESULT["r"]]
    marks = {
        group: [name for name, (value,) in findings.group_lines(fewer, group, columns)
                if value.best]
        for group in GROUPS
    }  # fmt: skip
    assert marks["20 cm"] == ["smap_l4"] and marks["0-5 cm"] == ["deepprofile"]
    everywhere = [findings.group_lines(summary, "20 cm", columns)]
    assert [n for lines in everywhere for n, (value,) in lines if value.best] == ["mean"]


def test_a_subject_with_fewer_cells_is_said_to_be_not_ranked(summary):
    fewer = fewer_cells(summary, "deepprofile", ["20 cm"])
    sentences = findings.compare_depths(fewer, "deepprofile")
    assert sentences[0].endswith("not surpassed by R or ubRMSE at: 0-5 cm, 0-100 cm.")
    assert sentences[1].startswith(
        "DeepProfile has metrics in fewer cells than others at 20 cm: it is not ranked there"
    )
    assert len(sentences) == 2
    assert findings.depths_behind(fewer, "deepprofile") == []


def test_a_depth_without_a_rival_of_as_many_cells_is_not_said_to_be_led(summary):
    alone = summary
    for other in SHIFTS:
        if other != "deepprofile":
            alone = fewer_cells(alone, other, ["0-5 cm"])
    assert findings.depths_judged(alone, "deepprofile") == ["20 cm", "0-100 cm"]
    texts = findings.compare_depths(alone, "deepprofile")
    assert texts[1].endswith("not surpassed by R or ubRMSE at: 0-100 cm.")


def test_the_brief_counts_the_depths_at_which_medians_rest_on_as_many_cells(metrics):
    kept = (metrics["estimate"] != "deepprofile") | (metrics["group"] != "20 cm")
    gone = metrics.assign(**{name: metrics[name].where(kept | (metrics["row"] > 700))
                             for name in ("r", "rmse", "ubrmse")})  # fmt: skip
    points = sections.brief(ReportInputs(assessment=Assessment(gone))).points
    text = "at: no depth (of 2 at which it is ranked with others)."
    assert any(point.endswith(text) for point in points)
    assert any("it is not ranked there" in point for point in points)


def test_no_bias_is_marked_as_the_best(summary):
    table = results_table(summary, list(GROUPS), "caption", names=("r", "bias"))
    assert any(row[2].best for row in table.rows)
    assert not any(row[3].best for row in table.rows)


def test_captions_name_the_least_number_of_cells_that_was_set(metrics):
    def caption(least):
        inputs = ReportInputs(assessment=Assessment(metrics), min_cells=least)
        (section,) = [s for s in sections.results(inputs) if s.name == "results_truth"]
        return section.tables[0].caption

    assert "Fewer than 13 cells, so read with care: 0-5 cm, 20 cm, 0-100 cm." in caption(13)
    assert "read with care" not in caption(12)  # every depth has 12 validation cells


def test_a_subject_that_is_not_in_the_table_is_judged_nowhere(summary):
    assert findings.compare_depths(summary, "other") == []
    assert findings.depths_behind(summary, "other") == []


values = st.lists(
    st.one_of(st.just(np.nan), st.floats(-1, 1).map(lambda v: round(v, 5))), min_size=1, max_size=8
)


@hypothesis.example([0.0, 0.0005], findings.COLUMNS[0])
@given(values, st.sampled_from(findings.COLUMNS))
def test_best_values_equal_a_plain_search(found, column):
    distance = {"high": lambda v: -v, "low": lambda v: v}.get(column.better)
    shown = [round(v * column.factor, column.digits) for v in found]
    finite = [v for v in shown if not np.isnan(v)]
    marks = findings.best(np.array(found), column)
    if distance is None or len(finite) < 2:
        assert not marks.any()
        return
    least = min(map(distance, finite))
    assert list(marks) == [not np.isnan(v) and distance(v) == least for v in shown]


def test_the_gap_is_validation_minus_training(metrics):
    truth = metrics[metrics["reference"] == "truth"]
    trained = truth["split"] == "train"
    sides = [summarise(truth[which], by=("reference", "group")) for which in (trained, ~trained)]
    gap = findings.validation_gap(*sides, "deepprofile").set_index("group")
    assert list(gap.index) == list(GROUPS)
    own = truth[(truth["estimate"] == "deepprofile") & (truth["group"] == "20 cm")]
    medians = own.groupby("split")["r"].median()
    expected = medians["validation"] - medians["train"]
    assert gap.loc["20 cm", "r_difference"] == pytest.approx(expected)
    assert gap.loc["20 cm", "cells_training"] == 12


def test_weights_and_reasons_are_counted_on_land(collocation, land):
    everywhere = collocation.fillna(1 / 3)
    reasons = findings.invalid_reasons(everywhere, land).set_index("state")
    assert reasons["cells"].to_dict() == {
        "valid": 87,
        "too few days": 3,
        "negative error variance of ERA5-Land": 1,
    }
    assert reasons["share"].sum() == pytest.approx(100)
    valid = land.values & (collocation["flag"].values == 0)
    table = findings.weight_summary(everywhere, land).set_index("product")
    first = collocation["weight"].values[0][valid]
    assert table.loc["SMAP L4", "median"] == pytest.approx(np.median(first))
    assert table.loc["SMAP L4", "share_above"] == pytest.approx(100 * np.mean(first > 0.9))


def test_a_flag_without_attributes_keeps_its_numbers():
    assert weights.flag_reasons(plane(np.full((24, 30), 7))) == {7: "flag 7"}


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 23), st.integers(0, 29)), min_size=1, max_size=6),
    st.booleans(),
)
def test_the_window_holds_all_used_cells_and_one_around(cells, south_up):
    mask = np.zeros((24, 30), dtype=bool)
    mask[tuple(np.array(sorted(cells)).T)] = True
    field = plane(mask)
    window = maps.used_window(field[::-1] if south_up else field)
    assert int(window.sum()) == len(cells)
    assert (np.diff(window["y"]) < 0).all() and (np.diff(window["x"]) > 0).all()
    rows, columns = (sorted(c[i] for c in cells) for i in (0, 1))
    height = min(rows[-1] + 1, 23) - max(rows[0] - 1, 0) + 1
    width = min(columns[-1] + 1, 29) - max(columns[0] - 1, 0) + 1
    assert window.shape == (height, width)


def test_ticks_stand_at_their_degrees(collocation, land):
    axes = weights.weights_map(collocation, land).axes[0]
    to_degrees = Transformer.from_crs(grid.EPSG, 4326, always_xy=True)
    for axis, which, positive in ((axes.xaxis, 0, "E"), (axes.yaxis, 1, "N")):
        names = [text.get_text() for text in axis.get_ticklabels()]
        assert len(names) >= 2
        for position, name in zip(axis.get_ticklocs(), names, strict=True):
            point = (position, 0.0) if which == 0 else (0.0, position)
            number, sign = name.split("° ")
            expected = float(number) * (1 if sign == positive else -1)
            assert to_degrees.transform(*point)[which] == pytest.approx(expected, abs=0.01)


def test_weights_become_red_green_and_blue(collocation, land):
    pure = collocation.copy(deep=True)
    rows, columns = np.nonzero(land.values)
    for i in range(3):
        pure["weight"].values[:, rows[i], columns[i]] = np.eye(3)[i]
    pure["weight"].values[:, rows[3], columns[3]] = 1 / 3
    image = weights.weights_map(pure, land).axes[0].images[0].get_array()
    found = [image[rows[i] - 7, columns[i] - 9] for i in range(4)]
    for colour, name in zip(found, ("red", "lime", "blue"), strict=False):
        np.testing.assert_allclose(colour, to_rgba(name))
    np.testing.assert_allclose(found[3], [3 ** (-1 / 2.2)] * 3 + [1])
    assert image[0, 0, 3] == 0


def test_invalid_cells_are_marked_by_reason(collocation, land):
    figure = weights.weights_map(collocation, land)
    marked = {c.get_label(): len(c.get_offsets()) for c in figure.axes[0].collections}
    assert marked == {"too few days (3)": 3, "negative error variance of ERA5-Land (1)": 1}


def test_layers_are_drawn_as_steps(example):
    axes = figures.example_profiles([example]).axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    gldas = [[0.19, 0], [0.19, 10], [0.21, 10], [0.21, 40], [0.25, 40], [0.25, 100]]
    np.testing.assert_allclose(lines["GLDAS layers"], gldas)
    assert np.isnan(lines["SMAP L4 layers"]).any()  # overlapping layers are not joined
    curve = lines["profile θ(z)"]
    np.testing.assert_allclose(curve[-1], [0.25, 100])
    np.testing.assert_allclose(lines["stations"], [[0.2, 5], [0.26, 50]])


def test_violins_count_cells_once(metrics):
    truth = metrics[metrics["reference"] == "truth"]
    twice = pd.concat([truth, truth])
    for frame in (truth, twice):
        axes = violins(frame).axes[-1]
        names = [text.get_text() for text in axes.get_xticklabels()]
        assert names == [f"{group}\nn = 24" for group in GROUPS]
        assert axes.get_xlabel().endswith("n is the number of cells with any estimate")


def test_few_cells_are_drawn_as_points(metrics):
    few = metrics[(metrics["reference"] == "stations") & (metrics["group"] == "20 cm")]
    collections = violins(few).axes[0].collections
    points = [len(c.get_offsets()) for c in collections if len(c.get_offsets()) > 1]
    assert points == [6] * len(SHIFTS)


def test_a_loss_that_reaches_zero_stays_on_its_axis(history):
    panels = {axes.get_title(loc="left"): axes for axes in figures.loss_curves(history).axes}
    assert panels[figures.LOSS_TERMS["negative"]].get_yscale() == "symlog"
    assert panels[figures.LOSS_TERMS["surface"]].get_yscale() == "log"


def test_results_table_marks_the_best_and_sorts_by_numbers(summary):
    table = results_table(summary, ["0-5 cm"], "caption", names=("n_cells", "r"))
    assert table.heads == ["Depth", "Estimate", "Cells", "R"]
    best = [row[1].text for row in table.rows if row[3].best]
    assert best == ["DeepProfile"]
    assert table.numbers == [False, False, True, True]


def test_long_tables_say_what_they_leave_out():
    table = plain_table(pd.DataFrame({"value": np.arange(250.0)}), "caption")
    assert (len(table.rows), table.left_out) == (200, 50)


def test_console_table_shows_groups_and_best_values(summary):
    console = Console(file=StringIO(), width=140)
    console.print(console_table(summary, "Against the truth"))
    text = console.file.getvalue()
    for word in ("Against the truth", "0-5 cm", "0-100 cm", "ERA5-Land", "DeepProfile", "ubRMSE"):
        assert word in text
    assert text.count("20 cm") == 1


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda c, land: weights.weights_map(c.isel(product=[0, 1]), land),
            "three products; found 2",
        ),
        (lambda c, land: weights.weights_map(c, land & False), "no cell with a value"),
        (lambda c, land: maps.moisture_maps({}), "at least one field"),
        (lambda c, land: figures.loss_curves(pd.DataFrame({"epoch": [1]})), "expected epoch"),
        (lambda c, land: figures.example_profiles([]), "at least one example"),
        (lambda c, land: violins(pd.DataFrame({"estimate": []})), "empty table"),
    ],
)
def test_figures_of_nothing_say_what_is_needed(draw, message, collocation, land):
    with pytest.raises(ValueError, match=message):
        draw(collocation, land)
