"""Which days and which estimates count, and why a metric is missing."""

import numpy as np
import pandas as pd
import pytest
from evaluation_support import TIME, column_estimate, reference_at
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile.evaluation.estimates.climatology import Climatology
from deepprofile.evaluation.skill.summaries import METRICS
from deepprofile.evaluation.skill.tables import evaluate

N = 60


def noise(seed, shape):
    return np.random.default_rng(seed).uniform(0.1, 0.4, shape)


def series_of(table, estimate):
    return table[table["estimate"] == estimate].set_index("row")


DEFECTS = {
    "none": lambda v: v,
    "constant": lambda v: np.full_like(v, 0.3),
    "hardly varies": lambda v: 0.3 + 1e-9 * v,
    "all missing": lambda v: np.full_like(v, np.nan),
    "one day": lambda v: np.where(np.arange(v.size) == 7, v, np.nan),
    "first half": lambda v: np.where(np.arange(v.size) < v.size // 2, v, np.nan),
    "last half": lambda v: np.where(np.arange(v.size) >= v.size // 2, v, np.nan),
    "every fourth day": lambda v: np.where(np.arange(v.size) % 4 == 0, v, np.nan),
    "infinite": lambda v: np.where(np.arange(v.size) % 3 == 0, np.inf, v),
    "mean of 0": lambda v: np.where(np.arange(v.size) % 2 == 0, 0.125, -0.125),
    "constant parts": lambda v: np.where(np.arange(v.size) < 40, 0.1, 0.3),
    "zero": lambda v: np.zeros_like(v),
}


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    defects=st.lists(st.sampled_from(sorted(DEFECTS)), min_size=12, max_size=12),
    lag=st.sampled_from([0, 50, 1000]),
    min_days=st.sampled_from([0, 2, 10, 30]),
    replicates=st.sampled_from([0, 5]),
)
def test_every_missing_metric_has_a_reason(seed, defects, lag, min_days, replicates):
    values = noise(seed, (4, 3, N))
    spoiled = [DEFECTS[defect](v) for defect, v in zip(defects, values.reshape(12, N), strict=True)]
    truth, a, b, c = np.reshape(spoiled, (4, 3, N))
    reference = reference_at(0.5, truth)
    estimates = [
        column_estimate("a", a),
        column_estimate("b", b, first_row=11),
        column_estimate("c", c, TIME[:N] + lag),
        Climatology.of(reference, min_years=1),
    ]
    options = {"min_days": min_days, "replicates": replicates}
    table = evaluate(estimates, reference, name="x", **options)
    assert len(table) == 12
    missing = table[list(METRICS)].isna()
    assert (missing.any(axis=1) == (table["reason"] != "")).all()
    assert np.isfinite(table[list(METRICS)].to_numpy()[~missing.to_numpy()]).all()
    few = table["n"] < max(min_days, 1)
    assert (missing["rmse"] == few).all()
    if replicates:
        limits = table[[f"{m}_{end}" for m in ("r", "rmse") for end in ("low", "high")]]
        assert (limits.isna().any(axis=1) == (table["interval_reason"] != "")).all()


def test_reasons_are_told_in_words():
    truth = noise(0, (6, N))
    truth[3], truth[4] = np.nan, 0.2
    a = noise(1, (5, N))
    a[1], a[2, 12:], a[3, 5] = 0.3 + 1e-9 * a[1], np.nan, 0.1
    estimates = [column_estimate("a", a)]
    lines = series_of(evaluate(estimates, reference_at(0.5, truth), name="x"), "a")
    assert lines.loc[[11, 14], ["r", "anomaly_r", "spearman", "kge"]].isna().all(axis=None)
    assert lines.loc[[11, 14], ["bias", "rmse", "ubrmse"]].notna().all(axis=None)
    assert lines["reason"].to_dict() == {
        10: "",
        11: "the estimate is constant",
        12: "12 common days, 30 needed",
        13: "the reference has no value",
        14: "the reference is constant",
        15: "the estimate lacks this cell",
    }
    sparse = np.where(np.arange(N) % 3 == 0, truth[:1], np.nan)
    table = evaluate(estimates, reference_at(0.5, sparse), name="x", min_days=20)
    assert table["reason"].item() == "fewer than 20 days have an anomaly"
    assert table["r"].notna().item() and table["anomaly_r"].isna().item()


@pytest.mark.parametrize("when", ["another period", "other cells", "gaps alone", "12 days"])
def test_an_estimate_that_never_overlaps_is_named_and_takes_nothing_from_others(when):
    truth, a, b, bad = noise(2, (4, 3, N))
    reference = reference_at(0.5, truth)
    others = [column_estimate("a", a), column_estimate("b", b)]
    time, first = TIME, 10
    if when == "another period":
        time = TIME + 1000
    elif when == "other cells":
        first = 50
    else:
        bad[:, 12 if when == "12 days" else 0 :] = np.nan
    table = evaluate([column_estimate("bad", bad, time, first), *others], reference, name="x")
    alone = evaluate(others, reference, name="x")
    rest = table[table["estimate"] != "bad"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, alone, check_exact=True)
    line = series_of(table, "bad")
    assert line["r"].isna().all()
    assert (
        set(line["reason"])
        == {
            "another period": {"the estimate has no day in common with the reference"},
            "other cells": {"the estimate lacks this cell"},
            "gaps alone": {"the estimate has no day in common with the reference"},
            "12 days": {"12 common days, 30 needed"},
        }[when]
    )
    assert set(line["n"]) == {12 if when == "12 days" else 0}


def test_a_climatology_does_not_hide_that_no_estimate_meets_the_reference():
    reference = reference_at(0.5, noise(8, (1, 400)))
    late = column_estimate("late", noise(9, (1, 400)), TIME + 1000)
    with pytest.raises(ValueError, match="late: 2020-09-27 to 2021-10-31; the reference: 2018"):
        evaluate([late, Climatology.of(reference)], reference, name="x")


def test_of_estimates_that_never_meet_the_shorter_is_left_out_of_that_series_alone():
    truth, a, b, c = noise(3, (4, 2, 120))
    a[0, 70:], b[0, :60] = np.nan, np.nan  # 70 and 60 days, 10 of them common
    estimates = [column_estimate(name, v) for name, v in zip("abc", (a, b, c), strict=True)]
    reference = reference_at(0.5, truth)
    table = evaluate(estimates, reference, name="x")
    short = series_of(table, "b").loc[10]
    assert short["reason"] == "left out: 10 common days with the other estimates, 30 needed"
    assert (short["n"], short["n_own"]) == (10, 60)
    without = evaluate([estimates[0], estimates[2]], reference, name="x")
    for name in "ac":
        assert series_of(table, name).loc[10].equals(series_of(without, name).loc[10])
        assert (series_of(table, name).loc[10, "n"], series_of(table, name).loc[11, "n"]) == (
            70,
            120,
        )
    assert series_of(table, "b").loc[11, "reason"] == ""


def test_a_climatology_is_compared_on_the_same_days_or_left_out():
    """Cell 10 has four years; of those of cell 11 only 60 days of the year are there thrice."""
    time = np.arange("2016-01-01", "2020-01-01", dtype="datetime64[D]")
    truth = noise(4, (2, time.size))
    truth[1, 791:] = np.nan
    truth[0, 100] = np.nan
    reference = reference_at(0.5, truth, time)
    a = column_estimate("a", noise(5, truth.shape), time)
    table = evaluate([Climatology.of(reference), a], reference, name="x")
    alone = evaluate([a], reference, name="x")
    both = table[table["row"] == 10].set_index("estimate")
    day = pd.Series(truth[0].astype("f4").astype("f8"), index=pd.DatetimeIndex(time))
    same = day.groupby([day.index.month, day.index.day])
    mean = (same.transform("sum") - day) / (same.transform("count") - 1)
    mean = mean.where(same.transform("count") > 2)  # 29 February is there once
    known = mean.notna() & day.notna()
    assert (both["n"] == known.sum()).all() and known.sum() == 1461 - 2
    assert both.loc["climatology", "r"] == pytest.approx(mean[known].corr(day[known]))
    assert both.loc["climatology", "ubrmse"] == pytest.approx((mean - day)[known].std(ddof=0))
    line = table[(table["estimate"] == "climatology") & (table["row"] == 11)]
    told = "left out: it would leave the others 180 of 791 common days"
    assert (line["reason"].item(), line["n"].item()) == (told, 180)
    kept = table[(table["estimate"] == "a") & (table["row"] == 11)].reset_index(drop=True)
    expected = alone[alone["row"] == 11].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, expected, check_exact=True)
    assert kept["n"].item() == 791


def test_a_yielding_estimate_takes_part_while_half_of_the_days_stay():
    time = np.arange("2016-01-01", "2019-01-01", dtype="datetime64[D]")
    truth = noise(6, (2, time.size))
    truth[0, 366 : 366 + 170] = np.nan  # 170 days of the year are left with two years
    truth[1, 366 : 366 + 250] = np.nan
    reference = reference_at(0.5, truth, time)
    a = column_estimate("a", noise(7, truth.shape), time)
    table = evaluate([a, Climatology.of(reference)], reference, name="x")
    found = series_of(table, "climatology")
    assert found.loc[10, "reason"] == ""
    others = series_of(table, "a")["n"]
    left = 1096 - 170 - 2 * 170 - 1  # and 29 February, which is there once
    assert others[10] == left and others[11] == 1096 - 250
    least = 1096 - 250 - 2 * 250 - 1
    assert found.loc[11, "reason"] == (
        f"left out: it would leave the others {least} of {1096 - 250} common days"
    )
