"""Every estimate is compared on the same days, series by series; summaries are over cells."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from evaluation_support import column_estimate, memory_noise, reference_at
from scipy import stats

from deepprofile.evaluation.estimates.base import LayerEstimate, MeanEstimate, ProfileEstimate
from deepprofile.evaluation.reference.depths import GROUP_NAMES
from deepprofile.evaluation.reference.series import label_cells, truth_reference
from deepprofile.evaluation.skill.measuring import LIMITED
from deepprofile.evaluation.skill.metrics import compare
from deepprofile.evaluation.skill.summaries import summarise
from deepprofile.evaluation.skill.tables import COLUMNS, LABELS, LIMITS, evaluate
from deepprofile.evaluation.skill.uncertainty import draw, interval, replicate_metrics

N_CELLS, N_DAYS = 7, 120
TIME = np.datetime64("2020-01-01") + np.arange(N_DAYS)
ROW, COLUMN = np.arange(100, 100 + N_CELLS), np.full(N_CELLS, 50)
EDGES = np.linspace(0, 1, 11)
LAYERS = {
    "smap_l4": [(0.0, 0.05), (0.0, 1.0)],
    "era5_land": [(0.0, 0.07), (0.07, 0.28), (0.28, 1.0)],
    "gldas": [(0.0, 0.1), (0.1, 0.4), (0.4, 1.0)],
}


@pytest.fixture
def truth() -> xr.Dataset:
    rng = np.random.default_rng(0)
    surface = 0.25 + 0.1 * np.sin(np.arange(N_DAYS) / 9) + rng.normal(0, 0.02, (N_CELLS, N_DAYS))
    damping = np.exp(-np.arange(10) / 4)
    values = 0.25 + (surface - 0.25)[:, None] * damping[None, :, None]
    return truth_reference(values, EDGES, TIME, ROW, COLUMN)


def products(noise: float = 0.03, cells: int = N_CELLS) -> list[LayerEstimate]:
    rng = np.random.default_rng(1)
    season = 0.25 + 0.08 * np.sin(np.arange(N_DAYS) / 9)
    found = []
    for name, layers in LAYERS.items():
        values = season[None, :, None] + rng.normal(0, noise, (cells, N_DAYS, len(layers)))
        found.append(LayerEstimate(name, ROW[:cells], COLUMN[:cells], TIME, layers, values))
    return found


def estimates(**options) -> list:
    three = products(**options)
    return [*three, MeanEstimate.of("mean", three)]


def test_the_table_equals_a_plain_loop(truth):
    four = estimates()
    four[1].soil_moisture[2, 5:40] = np.nan  # a gap in one product is a gap for all
    truth["soil_moisture"][:, 100:] = np.nan
    table = evaluate(four, truth, name="truth", batch=3)
    optional = {*LABELS, *LIMITS, "interval_reason"} - {*truth.coords}
    assert list(table.columns) == [name for name in COLUMNS if name not in optional]
    assert (table["reason"] == "").all()
    assert len(table) == len(four) * truth.sizes["series"]
    rng = np.random.default_rng(2)
    for _, line in table.sample(40, random_state=rng.integers(100)).iterrows():
        series = [
            i
            for i in range(truth.sizes["series"])
            if (int(truth["row"][i]), str(truth["group"][i].item())) == (line["row"], line["group"])
        ]
        assert len(series) == 1
        expected = truth["soil_moisture"].to_numpy()[series[0]].astype("f8")
        cell = [int(line["row"]) - 100]
        all_values = {e.name: e.values(cell, line["top"], line["bottom"])[0] for e in four}
        days = np.isfinite(expected) & np.isfinite(list(all_values.values())).all(axis=0)
        a, b = all_values[line["estimate"]][days], expected[days]
        assert line["n"] == days.sum() == (65 if line["row"] == 102 else 100)
        np.testing.assert_allclose(line["bias"], np.mean(a - b), atol=1e-12)
        np.testing.assert_allclose(line["rmse"], np.sqrt(np.mean((a - b) ** 2)))
        np.testing.assert_allclose(line["ubrmse"], np.std(a - b))
        np.testing.assert_allclose(line["r"], np.corrcoef(a, b)[0, 1])
        smap = all_values["smap_l4"][days]
        np.testing.assert_allclose(line["r_with_smap"], np.corrcoef(a, smap)[0, 1])
        np.testing.assert_allclose(line["spearman"], stats.spearmanr(a, b).statistic)
        apart = 1 - np.array([np.corrcoef(a, b)[0, 1], a.std() / b.std(), a.mean() / b.mean()])
        np.testing.assert_allclose(line["kge"], 1 - np.sqrt(np.sum(apart**2)))
        both = pd.DataFrame({"a": all_values[line["estimate"]], "b": expected})
        both.loc[~days] = np.nan
        both -= both.rolling(35, center=True, min_periods=18).mean()
        np.testing.assert_allclose(line["anomaly_r"], both["a"].corr(both["b"]))


def test_the_size_of_a_batch_and_threads_change_no_bit(truth):
    four = estimates()
    four[1].soil_moisture[2, 5:40] = np.nan
    truth["soil_moisture"][5:9, 60:] = np.nan
    tables = [
        evaluate(four, truth, name="truth", batch=batch, threads=threads)
        for batch, threads in ((1, 1), (4, 2), (1000, 1))
    ]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other, check_exact=True)
    assert tables[0]["row"].tolist() == np.repeat(truth["row"].to_numpy(), 4).tolist()


def test_limits_are_those_of_the_bootstrap_and_change_nothing_else():
    rng = np.random.default_rng(4)
    time = TIME[0] + np.arange(420)
    truth = reference_at(0.5, 0.25 + 0.05 * memory_noise(rng, (3, 420)), time)
    truth["soil_moisture"][1, 250:] = np.nan
    two = [
        column_estimate(name, truth["soil_moisture"].values + rng.normal(0, 0.02, (3, 420)), time)
        for name in "ab"
    ]
    options = {"name": "truth", "replicates": 40, "level": 0.8}
    table = evaluate(two, truth, batch=2, **options)
    plain = evaluate(two, truth, name="truth")
    pd.testing.assert_frame_equal(table[plain.columns], plain, check_exact=True)
    pd.testing.assert_frame_equal(
        table, evaluate(two, truth, batch=1, threads=2, **options), check_exact=True
    )
    values, expected = two[1].values(np.array([2]), 0.5, 0.5)[0], truth["soil_moisture"].values[2]
    mask = np.ones(420, dtype=bool)
    replicates = replicate_metrics(values, expected.astype("f8"), mask, draw(420, 40))
    line = table[(table["estimate"] == "b") & (table["row"] == 12)].iloc[0]
    for metric in LIMITED:
        ends = interval(getattr(replicates, metric), 0.8)
        assert (line[f"{metric}_low"], line[f"{metric}_high"]) == (ends.low, ends.high)
        assert line[f"{metric}_low"] < line[f"{metric}_high"]
    assert line["interval_reason"] == ""
    short = table[table["row"] == 11]
    assert short[list(LIMITS)].isna().all(axis=None) and short["r"].notna().all()
    assert set(short["interval_reason"]) == {"the common days span 250 days, 300 needed"}


def test_a_perfect_profile_is_found_perfect():
    beta = np.random.default_rng(0).normal([0.25, 0, 0], 0.02, (N_CELLS, N_DAYS, 3))
    estimate = ProfileEstimate("profile", ROW, COLUMN, TIME, beta)
    edges = np.linspace(0, 1, 1001)
    middles = (edges[1:] + edges[:-1]) / 2
    values = np.einsum("ctd,dz->czt", beta, middles ** np.arange(3)[:, None])
    reference = truth_reference(values, edges, TIME, ROW, COLUMN)
    table = evaluate([estimate], reference, name="truth")
    assert set(table["group"]) == set(GROUP_NAMES)
    assert (table["rmse"] < 2e-4).all() and (table["r"] > 0.9999).all()
    assert table["r_with_smap"].isna().all()


def test_different_periods_are_compared_where_they_meet(truth):
    short = products()
    late = LayerEstimate(
        "late", ROW, COLUMN, TIME[30:] + 0, LAYERS["gldas"], short[2].soil_moisture[:, 30:]
    )
    alone = evaluate([short[2]], truth.isel(time=slice(30, None)), name="truth")
    both = evaluate([short[0], late], truth, name="truth")
    assert set(both["n"]) == {90}
    np.testing.assert_allclose(
        both[both["estimate"] == "late"].sort_values(["group", "row"])["rmse"],
        alone.sort_values(["group", "row"])["rmse"],
    )


def test_periods_that_never_meet_are_named(truth):
    with pytest.raises(ValueError, match="smap_l4: 2020-01-01 to 2020-04-29"):
        evaluate(products(), truth.assign_coords(time=truth["time"] + 10**18), name="truth")


def test_estimates_need_distinct_names(truth):
    with pytest.raises(ValueError, match="distinct names"):
        evaluate([*products(), products()[0]], truth, name="truth")
    with pytest.raises(ValueError, match="at least one"):
        evaluate([], truth, name="truth")


def test_cells_that_an_estimate_lacks_have_no_day(truth):
    table = evaluate([*products(cells=5)], truth, name="truth")
    outside = table["row"] >= 105
    assert (table.loc[outside, "n"] == 0).all() and table.loc[outside, "r"].isna().all()
    assert (table.loc[~outside, "n"] == N_DAYS).all()
    summary = summarise(table)
    assert set(summary["n_cells"]) == {5} and set(summary["n_cells_without"]) == {2}
    assert set(table.loc[outside, "reason"]) == {"the estimate lacks this cell"}


def test_an_estimate_without_the_depth_does_not_hold_back_the_others(truth):
    three = products()
    shallow = LayerEstimate(
        "shallow", ROW, COLUMN, TIME, [(0.0, 0.1)], three[2].soil_moisture[..., :1]
    )
    table = evaluate([three[0], shallow], truth, name="truth")
    lines = table.groupby("group")["estimate"].unique().map(sorted)
    assert lines["0-5 cm"] == lines["5-10 cm"] == ["shallow", "smap_l4"]
    assert lines["50 cm"] == lines["0-100 cm"] == ["smap_l4"]


def test_short_series_keep_their_count_alone(truth):
    truth["soil_moisture"][:, 20:] = np.nan
    table = evaluate(products(), truth, name="truth")
    assert set(table["n"]) == {20} and table["rmse"].isna().all()
    assert set(table["reason"]) == {"20 common days, 30 needed"}
    assert evaluate(products(), truth, name="truth", min_days=20)["rmse"].notna().all()


def test_impossible_values_are_counted(truth):
    three = products()
    three[0].soil_moisture[:, :12] = -0.1
    three[0].soil_moisture[:, 12:18] = 0.7
    table = evaluate(three, truth, name="truth")
    smap = table["estimate"] == "smap_l4"
    np.testing.assert_allclose(table.loc[smap, "share_below_0"], 0.1)
    np.testing.assert_allclose(table.loc[smap, "share_above_06"], 0.05)
    assert (table.loc[~smap, "share_below_0"] == 0).all()


def test_anomaly_correlation_leaves_the_season_out(truth):
    table = evaluate(products(), truth, name="truth")
    surface = table[table["group"] == "0-5 cm"]
    assert (surface["r"] > 0.8).all()  # a common season
    assert (surface["anomaly_r"] < surface["r"]).all()


def test_labels_reach_the_table(truth):
    cells = pd.DataFrame({"row": ROW, "column": COLUMN, "cell_class": "core"})
    cells["split"] = np.where(ROW < 103, "train", "validation")
    table = evaluate(products(), label_cells(truth, cells), name="truth")
    assert set(table["cell_class"]) == {"core"}
    assert (table["split"] == np.where(table["row"] < 103, "train", "validation")).all()
    summary = summarise(table)
    assert list(summary["split"].unique()) == ["train", "validation"]
    assert set(summary.loc[summary["split"] == "train", "n_cells"]) == {3}


def test_classes_of_the_reference_reach_the_table(truth):
    cover = np.where(truth["row"] < 103, "crops", "")
    labelled = truth.assign_coords(land_cover=("series", cover), texture=("series", cover))
    table = evaluate(products(), labelled, name="truth")
    assert (table["land_cover"] == np.where(table["row"] < 103, "crops", "")).all()
    assert "texture" in table and "collocation" not in table
    summary = summarise(table, by=("land_cover", "group"))
    assert set(summary["land_cover"]) == {"", "crops"}
    assert set(summary.loc[summary["land_cover"] == "crops", "n_cells"]) == {3}


def long_table(rows: list[tuple]) -> pd.DataFrame:
    names = ["estimate", "group", "row", "r", "rmse"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(reference="truth", split="", column=1)


def test_summary_by_hand():
    rows = [("a", "50 cm", i, r, 0.1) for i, r in enumerate([0.9, 0.8, 0.2, np.nan])]
    rows += [("b", "50 cm", i, r, 0.1) for i, r in enumerate([0.5, 0.8, 0.3, 0.4])]
    rows += [("b", "0-5 cm", 0, 0.7, 0.1), ("a", "0-5 cm", 0, 0.6, 0.1)]
    summary = summarise(long_table(rows), min_cells=2)
    assert list(summary["group"]) == ["0-5 cm"] * 2 + ["50 cm"] * 2
    assert list(summary["estimate"]) == ["a", "b"] * 2
    lines = summary.set_index(["group", "estimate"])
    assert lines.loc[("50 cm", "a"), "r"] == 0.8
    assert lines.loc[("50 cm", "b"), "r"] == pytest.approx(0.45)
    assert lines.loc[("50 cm", "a"), "r_q25"] == pytest.approx(0.5)
    assert lines.loc[("50 cm", "a"), "r_q75"] == pytest.approx(0.85)
    # cell 0 to a, cell 1 shared, cell 2 to b; in cell 3 b is alone, which is no win
    assert lines.loc[("50 cm", "a"), "share_won"] == pytest.approx(1.5 / 3)
    assert lines.loc[("50 cm", "b"), "share_won"] == pytest.approx(1.5 / 3)
    assert list(summary["few_cells"]) == [True, True, False, False]


def test_several_depths_of_a_cell_count_once():
    rows = [("a", "60-80 cm", 0, r, 0.1) for r in (0.9, 0.7)] + [("a", "60-80 cm", 1, 0.2, 0.3)]
    summary = summarise(long_table(rows))
    assert summary["n_cells"].item() == 2
    assert summary["r"].item() == pytest.approx(0.5)


def test_statistics_of_one_series_match_the_metrics_module(truth):
    one = products()[:1]
    table = evaluate(one, truth, name="truth").set_index(["group", "row"])
    series = int(np.flatnonzero(truth["group"].to_numpy() == "0-100 cm")[3])
    expected = truth["soil_moisture"].to_numpy()[series]
    values = one[0].values(np.array([3]), 0.0, 1.0)[0]
    result = compare(values, expected, np.ones(N_DAYS, dtype=bool))
    assert table.loc[("0-100 cm", 103), "r"] == pytest.approx(float(result.r))
