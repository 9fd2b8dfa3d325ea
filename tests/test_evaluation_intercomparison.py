"""An estimate against each layer of the products: plain NumPy agrees, blocks of days add up."""

import numpy as np
import pandas as pd
import pytest

from deepprofile.evaluation.estimates.base import LayerEstimate, ProfileEstimate
from deepprofile.evaluation.skill.intercomparison import COLUMNS, METRICS, intercompare, medians

TIME = np.datetime64("2020-01-01") + np.arange(90)
ROW, COLUMN = np.arange(40, 46), np.full(6, 3)
LAYERS = {"smap_l4": [(0.0, 0.05), (0.0, 1.0)], "gldas": [(0.0, 0.1), (0.1, 0.4), (0.4, 1.0)]}


def profile(days=slice(None)):
    beta = np.random.default_rng(0).normal([0.25, 0.02, 0.01], 0.02, (6, 90, 3))
    beta[0, 10:20] = np.nan
    return ProfileEstimate("profile", ROW, COLUMN, TIME[days], beta[:, days])


def products(days=slice(None)):
    found = []
    for seed, (name, layers) in enumerate(LAYERS.items(), 1):
        values = np.random.default_rng(seed).uniform(0.1, 0.4, (5, 90, len(layers)))
        values[1, :7, -1] = np.nan
        values[2, :, 0] = 0.2
        values[3, 4:, 0] = np.nan
        place = np.arange(5)[::-1]  # the last cell is missing, the order another
        found.append(
            LayerEstimate(name, ROW[place], COLUMN[place], TIME[days], layers, values[:, days])
        )
    return found


def test_every_cell_and_layer_equals_plain_numpy():
    table = intercompare(profile(), products(), batch=2).table()
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 6 * 5
    estimate, by_name = profile(), {product.name: product for product in products()}
    for _, line in table[table["reason"] == ""].iterrows():
        cell, product = int(line["row"]) - 40, by_name[line["product"]]
        layer = product.layers.index((line["top"], line["bottom"]))
        b = product.soil_moisture[4 - cell, :, layer]
        powers = np.arange(1, 4)
        mean = (line["bottom"] ** powers - line["top"] ** powers) / powers
        a = estimate.coefficients[cell] @ mean / (line["bottom"] - line["top"])
        known = np.isfinite(a) & np.isfinite(b)
        a, b = a[known], b[known]
        assert line["n"] == known.sum()
        assert line["rmsd"] == pytest.approx(np.sqrt(np.mean((a - b) ** 2)))
        assert line["ubrmsd"] == pytest.approx(np.std(a - b))
        assert line["bias"] == pytest.approx(np.mean(a) - np.mean(b))
        assert line["r"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert (table[list(METRICS)].isna().any(axis=1) == (table["reason"] != "")).all()
    reasons = table.set_index(["row", "product", "top"])["reason"]
    assert reasons[(45, "gldas", 0.4)] == "0 common days, 30 needed"
    assert reasons[(42, "gldas", 0.0)] == "the product is constant"
    assert reasons[(41, "gldas", 0.0)] == "4 common days, 30 needed"


def test_blocks_of_days_add_up_and_batches_change_nothing():
    whole = intercompare(profile(), products(), batch=1000)
    spans = [slice(0, 32), slice(32, 64), slice(64, 90)]
    parts = [intercompare(profile(days), products(days), batch=4) for days in spans]
    total = parts[0] + parts[1] + parts[2]
    pd.testing.assert_frame_equal(total.table(), whole.table(), rtol=1e-10)
    pd.testing.assert_frame_equal(
        intercompare(profile(), products(), batch=1).table(), whole.table(), check_exact=True
    )
    with pytest.raises(ValueError, match="expected other days of the same estimate"):
        parts[0] + intercompare(profile(), products()[:1])


def test_chosen_cells_and_other_periods():
    late = [
        LayerEstimate(p.name, p.row, p.column, TIME + 50, p.layers, p.soil_moisture)
        for p in products()
    ]
    found = intercompare(profile(), late, np.array([4, 1]))
    assert found.row.tolist() == [44, 41]
    assert found.statistics.n[0].tolist() == [40] * 5
    never = [
        LayerEstimate(p.name, p.row, p.column, TIME + 500, p.layers, p.soil_moisture)
        for p in products()
    ]
    table = intercompare(profile(), never).table()
    assert set(table["reason"]) == {"0 common days, 30 needed"}
    assert intercompare(profile(), late, np.array([], int)).table().empty


def test_a_layer_that_the_estimate_lacks_is_named():
    shallow = LayerEstimate(
        "shallow", ROW, COLUMN, TIME, [(0.0, 0.1)], np.full((6, 90, 1), 0.2) + 0.01
    )
    table = intercompare(shallow, products()).table().set_index(["row", "product", "top", "bottom"])
    assert table.loc[(40, "gldas", 0.4, 1.0), "reason"] == "the estimate has no such layer"
    assert table.loc[(40, "gldas", 0.0, 0.1), "reason"] == "the estimate is constant"
    assert np.isfinite(table.loc[(40, "gldas", 0.0, 0.1), "rmsd"])


def test_medians_over_cells():
    table = intercompare(profile(), products()).table()
    summary = medians(table, min_cells=5)
    assert summary["product"].tolist() == ["smap_l4"] * 2 + ["gldas"] * 3
    line = summary.iloc[-1]
    part = table[(table["product"] == "gldas") & (table["top"] == 0.4)]
    assert (line["product"], line["top"]) == ("gldas", 0.4)
    assert (line["n_cells"], line["n_cells_without"]) == (5, 1)
    assert line["r"] == part["r"].median()
    assert line["rmsd_q75"] == part["rmsd"].quantile(0.75)
    assert not line["few_cells"]
    assert medians(table)["few_cells"].all()


def test_products_need_distinct_names():
    for wrong in ([], [products()[0]] * 2):
        with pytest.raises(ValueError, match="expected at least one, distinct names"):
            intercompare(profile(), wrong)
