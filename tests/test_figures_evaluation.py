"""Figures of an evaluation: what stands on their axes, and what they count and leave out."""

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from figures_support import ESTIMATES, GROUPS, N_CELLS, REFERENCE, SUBJECT
from figures_support import assessment as make_assessment
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile import grid
from deepprofile.evaluation.assessment import Assessment
from deepprofile.evaluation.figures import (
    classes,
    density,
    intercomparison,
    pairs,
    series,
    station_maps,
    style,
)
from deepprofile.evaluation.figures.violins import violins
from deepprofile.evaluation.report import comparison_sections, spread_sections
from deepprofile.evaluation.report.blocks import Picture
from deepprofile.evaluation.report.inputs import ReportInputs
from deepprofile.evaluation.skill.intercomparison import medians
from deepprofile.evaluation.skill.overview import overview
from deepprofile.evaluation.skill.pairs import summarise_pairs
from deepprofile.evaluation.skill.summaries import cell_means


@pytest.fixture(scope="module")
def assessment():
    return make_assessment()


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_every_density_panel_tells_its_days_and_cells(assessment):
    counts = {key[2:]: value for key, value in assessment.density.items()}
    figure = density.density_scatter(counts, dict.fromkeys(counts, 7))
    axes, bar = figure.axes
    assert texts(axes).count("50 d, 7 cells") == len(ESTIMATES) * len(GROUPS)
    assert set(GROUPS) <= set(texts(axes))
    assert "m³ m⁻³" in axes.get_xlabel() and "m³ m⁻³" in axes.get_ylabel()
    assert "Days" in bar.get_ylabel()
    assert len(axes.images) == 6


def test_density_lies_above_the_line_where_the_estimate_is_wetter(assessment):
    key = ("climatology", "0-5 cm")  # two classes wetter than the reference
    figure = density.density_scatter({key: assessment.density[(REFERENCE, "", *key)]}, {key: 1})
    (image,) = figure.axes[0].images
    rows, columns = np.nonzero(~np.ma.getmaskarray(image.get_array()))
    assert image.origin == "lower"
    np.testing.assert_array_equal(rows, columns + 2)


def test_days_without_a_density_are_said_to_be_none(assessment):
    counts = {("a", "0-5 cm"): assessment.density[REFERENCE, "", SUBJECT, "0-5 cm"]}
    counts["b", "0-5 cm"] = np.zeros_like(counts["a", "0-5 cm"])
    assert "no days" in texts(density.density_scatter(counts, {}).axes[0])
    with pytest.raises(ValueError, match="at least one day"):
        density.density_scatter({("b", "0-5 cm"): counts["b", "0-5 cm"]}, {})


def test_example_cells_follow_their_rule(assessment):
    kept = assessment.series
    cells = series.example_cells(assessment.metrics, kept, SUBJECT)
    own = assessment.metrics[assessment.metrics["estimate"] == SUBJECT]
    skill = own[own["row"] < 405].groupby("row")["r"].median().sort_values(ascending=False)
    expected = {"best": skill.index[0], "middle": skill.index[2], "lowest": skill.index[-1]}
    found = {why: cell.row for cell in cells for why in cell.why.split(" and ")}
    assert found == expected | {"most depths": 400}
    shuffled = assessment.metrics.sample(frac=1, random_state=3)
    assert series.example_cells(shuffled, kept, SUBJECT) == cells
    assert series.example_cells(assessment.metrics, kept, "nobody") == []


def test_series_panels_show_reference_and_estimates_by_depth(assessment):
    cell = series.ExampleCell("best", 401, 903, 0.9)
    positions = series.drawn_series(assessment.series, REFERENCE, cell)
    np.testing.assert_array_equal(positions, [2, 3])
    figure = series.series_panels(assessment.series, positions, SUBJECT)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"{group}, as named" for group in GROUPS]
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert list(lines) == ["reference", "model", "SMAP L4", "climatology"]
    np.testing.assert_array_equal(
        lines["SMAP L4"].get_ydata()[-5:], assessment.series.estimates["smap_l4"][3, -5:]
    )
    assert "m³ m⁻³" in figure.get_supylabel()
    assert lines["model"].get_color() == style.SUBJECT_COLOUR


def test_many_depths_are_spread_from_first_to_last(assessment):
    kept = assessment.series
    many = pd.concat([kept.table.iloc[[0]]] * 9, ignore_index=True)
    many["top"] = many["bottom"] = np.arange(9)[::-1] / 10
    table = series.DailySeries(many, kept.days, 1, kept.truth, kept.estimates)
    cell = series.ExampleCell("best", 400, 900, 0.9)
    found = series.drawn_series(table, REFERENCE, cell)
    np.testing.assert_array_equal(found, [8, 6, 4, 2, 0])


def test_small_classes_are_left_out_and_named(assessment, undrawn):
    inputs = ReportInputs(subject=SUBJECT, assessment=assessment)
    section = comparison_sections.classes(inputs)
    assert [p.name for p in section.pictures] == ["classes_stations_1_1", "classes_stations_2_1"]
    for picture in section.pictures:
        assert "peat (3)" in picture.caption and "fewer than 20 cells" in picture.caption
    (table,) = section.tables
    assert {row[3].text for row in table.rows} == {"clay"}
    assert "4 of 8 pairs of classes differ" in section.points[0]


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made and not rendered."""
    monkeypatch.setattr(
        comparison_sections,
        "picture",
        lambda name, text, drawn, kind: Picture(name, text, kind, {}),
    )


def few_of_climatology(metrics, n_cells):
    """Metrics with classes by texture; climatology has R in some clay cells, ubRMSE in all."""
    clay = np.unique(metrics.loc[metrics["texture"] == "clay", "row"])
    gone = (metrics["estimate"] == "climatology") & metrics["row"].isin(clay[n_cells:])
    metrics = metrics.drop(columns=["network", "cell_class"])
    return metrics.assign(r=metrics["r"].mask(gone))


@pytest.mark.parametrize(("n_cells", "boxes"), [(7, 5), (8, 6)])
def test_an_estimate_with_few_cells_of_a_class_has_no_box(assessment, undrawn, n_cells, boxes):
    metrics = few_of_climatology(assessment.metrics, n_cells)
    rows = metrics[metrics["group"] == "0-5 cm"].assign(**{"class": metrics["texture"]})
    panel = classes.ClassPanel("texture", rows, {"clay": 20, "sand": 21}, {})
    figure = classes.class_boxes([panel], subject=SUBJECT, min_cells=8)
    assert [len(axes.patches) for axes in figure.axes] == [boxes + 1, 7]  # and a grey stripe
    shown = Assessment(metrics)
    inputs = ReportInputs(subject=SUBJECT, assessment=shown, min_cells=8)
    captions = [picture.caption for picture in comparison_sections.classes(inputs).pictures]
    text = "No box, because of fewer than 8 cells with a value: climatology in clay (R)."
    assert [text in caption for caption in captions] == [boxes == 5] * 2
    assert all("fewer than 8 cells or are not known" in caption for caption in captions)


def test_letters_and_table_come_from_the_tests_of_the_written_table(assessment, undrawn):
    training = assessment.metrics.assign(split="train", row=assessment.metrics["row"] + 100)
    metrics = pd.concat([assessment.metrics.assign(split="validation"), training])
    inputs = ReportInputs(subject=SUBJECT, assessment=Assessment(metrics))
    (table,) = comparison_sections.classes(inputs).tables
    written = overview(metrics.assign(reason=""))["class_tests"]
    written = written[(written["estimate"] == SUBJECT) & (written["split"] == "validation")]
    written = written[written["metric"].isin(["r", "ubrmse"]) & (written["p_adjusted"] < 0.05)]
    found = sorted(row[-1].sort for row in table.rows)
    assert found == sorted(written["p_adjusted"]) and len(found) == 4


@pytest.mark.parametrize(
    ("column", "values", "called", "n_cells"),
    [
        ("split", ["train", "validation", "candidate"], "validation cells", 2),
        ("split", ["unqualified", "qualified", "qualified"], "qualified cells", 4),
        ("cell_class", ["unqualified", "core", "extra"], "cells", 4),
    ],
)
def test_products_are_compared_in_the_cells_that_count(
    assessment, undrawn, column, values, called, n_cells
):
    table = assessment.intercomparison
    table = table.assign(**{column: np.array(values)[(table["row"] - 400) % 3]})
    inputs = ReportInputs(subject=SUBJECT, assessment=Assessment(assessment.metrics, None, table))
    section = comparison_sections.products(inputs)
    (shown,) = section.tables
    assert [row[1].text for row in shown.rows] == [str(n_cells)] * 2
    own = table[(table["row"] % 3 == 2) | ((table["row"] % 3 == 0) & (n_cells == 4))]
    assert shown.rows[0][2].sort == pytest.approx(own["rmsd"].median())
    assert f"Medians over {called}." in shown.caption
    assert "Fewer than 20 cells, so read with care: SMAP L4 0-5 cm" in shown.caption
    assert all(f"the products in {called}," in picture.caption for picture in section.pictures)


def test_products_without_a_cell_that_counts_are_not_compared(assessment, undrawn):
    table = assessment.intercomparison.assign(split="train")
    inputs = ReportInputs(subject=SUBJECT, assessment=Assessment(assessment.metrics, None, table))
    section = comparison_sections.products(inputs)
    assert not section.tables and not section.pictures
    assert "no validation cell" in section.missing[0]


def test_class_boxes_name_classes_with_their_cells(assessment):
    rows = assessment.metrics[assessment.metrics["group"] == "0-5 cm"]
    cells = cell_means(rows.rename(columns={"texture": "class"}), ["class", "estimate"])
    panel = classes.ClassPanel("texture", cells, {"clay": 20, "sand": 21}, {"r": {"clay": "a"}})
    figure = classes.class_boxes([panel], subject=SUBJECT)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["clay\nn = 20", "sand\nn = 21"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["R (dimensionless)", "ubRMSE (m³ m⁻³)"]
    assert "a" in texts(figure.axes[0])


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.data())
def test_classes_share_a_letter_exactly_where_they_do_not_differ(n, data):
    names = [f"class {i}" for i in range(n)]
    couples = list(itertools.combinations(names, 2))
    differ = data.draw(st.lists(st.booleans(), min_size=len(couples), max_size=len(couples)))
    tests = pd.DataFrame(couples, columns=["class_a", "class_b"])
    tests["p_adjusted"] = np.where(differ, 0.01, 0.5)
    signs = classes.letters(tests, names)
    for (a, b), apart in zip(couples, differ, strict=True):
        assert bool(set(signs[a]) & set(signs[b])) != apart
    assert all(signs.values())


def test_pages_hold_every_panel_with_classes_once():
    cells = pd.DataFrame({"estimate": ["a"]})
    sizes = [{str(i): 20 for i in range(n)} for n in (8, 0, 20, 3, 60, 1)]
    panels = [classes.ClassPanel(str(i), cells, size, {}) for i, size in enumerate(sizes)]
    found = classes.pages(panels, most=6.0)
    assert [panel.by for page in found for panel in page] == ["0", "2", "3", "4", "5"]
    assert len(found) > 1


def test_pairs_show_shares_of_judged_cells(assessment):
    summary = summarise_pairs(assessment.pairs)
    figure = pairs.paired_shares(summary, ["smap_l4"], SUBJECT)
    shares = figure.axes[0]
    widths = [bar.get_width() for bar in shares.patches]
    np.testing.assert_allclose(widths, [75, 75, 0, 0, 25, 25])
    assert texts(shares) == [str(N_CELLS)] * 2
    assert "%" in shares.get_xlabel() and "m³ m⁻³" in figure.axes[3].get_xlabel()
    with pytest.raises(ValueError, match="at least one other"):
        pairs.paired_shares(summary, ["nobody"], SUBJECT)


def test_layers_have_maps_and_medians_with_units(assessment):
    figure = intercomparison.layer_maps(assessment.intercomparison, "rmsd")
    titles = [axes.get_title(loc="left") for axes in figure.axes[:2]]
    assert titles[0].startswith("SMAP L4 0-5 cm\nmedian 0.033") and "n = 6" in titles[1]
    assert figure.axes[-1].get_ylabel() == "RMSD (m³ m⁻³)"
    summary = medians(assessment.intercomparison)
    figure = intercomparison.layer_medians(summary)
    assert [axes.get_title() for axes in figure.axes][3] == "Bias (m³ m⁻³)"
    assert texts(figure.axes[3])[0] == "−0.006\n[−0.021, 0.009]"


def test_points_lie_at_their_cells_on_land(assessment):
    own = assessment.metrics[assessment.metrics["estimate"] == SUBJECT]
    cells = cell_means(own, ["estimate"])
    x, y = grid.x_centers()[850:1100], grid.y_centers()[380:460]
    land = xr.DataArray(np.ones((80, 250), bool), {"y": y, "x": x}, ("y", "x"))
    figure = station_maps.skill_maps(cells, land)
    axes = figure.axes[0]
    (points,) = axes.collections
    at = np.column_stack([grid.x_centers()[cells["column"]], grid.y_centers()[cells["row"]]])
    np.testing.assert_allclose(points.get_offsets(), at)
    np.testing.assert_allclose(points.get_array(), cells["r"])
    assert axes.get_title(loc="left") == f"n = {N_CELLS} cells"
    assert len(axes.images) == 1
    assert all("° " in text.get_text() for text in axes.get_xticklabels())
    assert not station_maps.skill_maps(cells).axes[0].images
    with pytest.raises(ValueError, match="at least one cell"):
        station_maps.skill_maps(cells.iloc[:0])


def test_land_is_cut_to_the_window_and_thinned():
    x, y = grid.x_centers(), grid.y_centers()
    values = np.zeros((grid.N_ROWS, grid.N_COLUMNS), dtype=bool)
    values[300:304, 900:904] = True
    land = xr.DataArray(values, {"y": y, "x": x}, ("y", "x"))
    whole, edges = station_maps.land_image(land, (x[0], x[-1], y[-1], y[0]))
    assert max(whole.shape) <= station_maps.MOST_PIXELS
    assert edges[0] == pytest.approx(grid.X_WEST) and edges[3] == pytest.approx(grid.Y_NORTH)
    near = (x[900] - 1, x[903] + 1, y[303] - 1, y[300] + 1)
    part, edges = station_maps.land_image(land, near)
    assert part.shape == (4, 4) and part.all()
    assert edges[0] == pytest.approx(x[900] - grid.CELL_SIZE / 2)


def test_the_map_takes_the_column_or_else_the_depth_with_most_cells(assessment):
    own = assessment.metrics[assessment.metrics["estimate"] == SUBJECT]
    assert spread_sections.map_group(own) == "0-100 cm"
    without = own[own["group"] != "0-100 cm"]
    deep = without.iloc[:5].assign(group="50 cm")
    assert spread_sections.map_group(pd.concat([deep, without])) == "0-5 cm"


def test_four_metrics_are_spread_for_core_and_for_extra_cells(assessment):
    core = assessment.metrics[assessment.metrics["cell_class"] == "core"]
    figure = violins(core, spread_sections.SPREAD, SUBJECT)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == [style.METRIC_LABELS[name] for name in spread_sections.SPREAD]
    ticks = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert ticks == [f"{group}\nn = 22" for group in GROUPS]
    sides = spread_sections._by_class(assessment.metrics)
    assert list(sides) == ["core", "extra"]
    assert list(spread_sections._by_class(core)) == [""]


def test_the_subject_is_black_and_no_two_estimates_share_a_colour():
    names = ["one", "smap_l4", "two", "model", "climatology", "three", "gldas", "four"]
    found = style.colours(names, "model")
    assert found["model"] == "#000000"
    assert len(set(found.values())) == len(names)
    assert found["smap_l4"] == style.COLOURS["smap_l4"]
    assert style.colours(["deepprofile", "other"], "other")["other"] != "#000000"


def test_all_forms_of_a_figure_are_made_and_do_not_change(assessment):
    summary = medians(assessment.intercomparison)
    first, second = (style.images(intercomparison.layer_medians(summary)) for _ in range(2))
    assert first == second
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert all(first[kind].startswith(start) for kind, start in starts.items())
