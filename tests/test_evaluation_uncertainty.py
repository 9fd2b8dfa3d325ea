"""Intervals, ranks, classes and climatology against plain loops and other libraries."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deepprofile.evaluation.climatology import Climatology, other_years_mean
from deepprofile.evaluation.metrics import compare
from deepprofile.evaluation.ranks import spearman
from deepprofile.evaluation.reference import build_reference
from deepprofile.evaluation.strata import class_sizes, compare_classes
from deepprofile.evaluation.uncertainty import first_days, interval, replicate_metrics

NAMES = ("bias", "r", "rmse", "ubrmse")


def memory_of(rng, shape, days=10.0):
    """Noise of standard deviation 1 whose memory is some days."""
    keep = np.exp(-1 / days)
    noise = rng.normal(size=shape)
    for t in range(1, shape[-1]):
        noise[..., t] = keep * noise[..., t - 1] + np.sqrt(1 - keep**2) * noise[..., t]
    return noise


def some_series(seed=0, shape=(3, 400)):
    rng = np.random.default_rng(seed)
    truth = 0.25 + 0.05 * memory_of(rng, shape)
    estimates = 0.02 + truth + 0.03 * memory_of(rng, (2, *shape))
    return estimates, truth, rng.random(shape) < 0.8


def test_replicates_are_the_metrics_of_series_put_together_from_blocks():
    estimates, truth, mask = some_series()
    blocks = first_days(400, replicates=7, block_days=60, seed=3)
    assert blocks.shape == (7, 7)
    assert blocks.min() >= 0
    assert blocks.max() <= 340
    found = replicate_metrics(estimates, truth, mask, blocks, 60)
    for r, firsts in enumerate(blocks):
        days = np.concatenate([np.arange(first, first + 60) for first in firsts])
        expected = compare(estimates[..., days], truth[:, days], mask[:, days])
        np.testing.assert_array_equal(found.n[..., r], expected.n)
        for name in NAMES:
            np.testing.assert_allclose(
                getattr(found, name)[..., r], getattr(expected, name), rtol=1e-9, atol=1e-12
            )


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """600 series of ten years whose true bias is known; days taken as independent fail."""
    rng = np.random.default_rng(5)
    truth = 0.25 + 0.05 * memory_of(rng, (600, 1200))
    estimate = truth + 0.01 + 0.03 * memory_of(rng, truth.shape)
    mask = rng.random(truth.shape) < 0.9
    found = replicate_metrics(estimate, truth, mask, first_days(1200, 300))
    ends = interval(found.bias)
    covered = np.mean((ends.low < 0.01) & (ends.high > 0.01))
    # Its own sampling error is 0.01; a percentile interval of 20 blocks is a little too narrow.
    assert 0.88 < covered < 0.97
    spread = 1.96 * np.where(mask, estimate - truth, np.nan)
    alone = np.nanstd(spread, axis=1) / np.sqrt(mask.sum(axis=1))
    middle = compare(estimate, truth, mask).bias
    assert np.mean(np.abs(middle - 0.01) < alone) < 0.6


def test_a_paired_difference_is_known_better_than_either():
    rng = np.random.default_rng(8)
    truth = 0.25 + 0.05 * memory_of(rng, (40, 1200))
    common = truth + 0.03 * memory_of(rng, truth.shape)
    pair = np.stack([common, common + 0.01 * rng.normal(size=truth.shape)])
    found = replicate_metrics(pair, truth, np.ones(truth.shape, bool), first_days(1200, 300))
    each, gain = interval(found.r), interval(found.r[0] - found.r[1])
    assert np.median(gain.high - gain.low) < 0.5 * np.median(each.high - each.low)
    assert np.mean(gain.low > 0) > 0.9
    same = interval(found.r[0] - found.r[0])
    assert np.all((same.low == 0) & (same.high == 0))


def test_no_interval_without_enough_blocks_or_replicates():
    estimates, truth, mask = some_series(shape=(3, 299))
    found = replicate_metrics(estimates, truth, mask, first_days(299, 20))
    assert np.isnan(found.bias).all()
    assert np.isnan(interval(found.bias).low).all()
    estimates, truth, mask = some_series()
    mask[0, 60:] = False  # most replicates have no day
    found = interval(replicate_metrics(estimates, truth, mask, first_days(400, 50)).bias)
    assert np.isnan(found.low[:, 0]).all()
    assert np.isfinite(found.low[:, 1:]).all()
    with pytest.raises(ValueError, match="level is 95"):
        interval(np.zeros((2, 3)), 95)
    with pytest.raises(ValueError, match="draw them for this series"):
        replicate_metrics(estimates, truth, mask, first_days(500, 5))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 60), levels=st.integers(2, 40))
def test_spearman_equals_scipy_also_with_ties(seed, n, levels):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, levels, (2, 4, n)) / 50
    x[0], y[1] = 0.3, 0.3
    mask = rng.random((4, n)) < 0.8
    mask[:, :3] = True
    found = spearman(x, y, mask)
    for i in range(4):
        a, b = x[i][mask[i]], y[i][mask[i]]
        expected = np.nan
        if np.ptp(a) > 0 and np.ptp(b) > 0:
            expected = stats.spearmanr(a, b).statistic
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-12)


def cells(n=90, seed=0):
    rng = np.random.default_rng(seed)
    cover = np.repeat(["crops", "grass", "forest", None], [40, 30, n - 75, 5])
    r = rng.normal(0.7, 0.1, n) + np.where(cover == "grass", 0.2, 0.0)
    return pd.DataFrame({"estimate": "a", "group": "50 cm", "cover": cover, "r": r, "bias": r - 1})


def test_classes_are_compared_by_students_t_test_and_corrected_for_their_number():
    table = cells()
    found = compare_classes(table, ["cover"], ["r", "bias"])
    assert [tuple(line) for line in found[["metric", "class_a", "class_b"]].to_numpy()] == [
        ("r", "crops", "grass"),
        ("bias", "crops", "grass"),
    ]
    one, other = (table["r"][table["cover"] == name] for name in ("crops", "grass"))
    expected = stats.ttest_ind(one, other, equal_var=True)
    assert found["p"][0] == pytest.approx(expected.pvalue, rel=1e-12)
    assert (found["n_a"][0], found["n_b"][0]) == (40, 30)
    assert found["mean_b"][0] == pytest.approx(other.mean())
    p = np.sort(found["p"])
    by_hand = np.minimum.accumulate((p * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    np.testing.assert_allclose(np.sort(found["p_adjusted"]), by_hand)


def test_small_and_unknown_classes_are_named_and_left_out():
    sizes = class_sizes(cells(), "cover").set_index("class")
    assert sizes["n_cells"].to_dict() == {"crops": 40, "forest": 15, "grass": 30, "unknown": 5}
    assert sizes.index[sizes["used"]].tolist() == ["crops", "grass"]
    assert compare_classes(cells().head(45), ["cover"], ["r"]).empty


def test_climatology_is_the_mean_of_the_other_years():
    time = np.arange("2015-11-01", "2020-04-01", dtype="datetime64[D]")
    rng = np.random.default_rng(1)
    values = np.where(rng.random((2, time.size)) < 0.7, rng.random((2, time.size)), np.nan)
    found = other_years_mean(values, time)
    stamps = pd.DatetimeIndex(time)
    for t in range(0, time.size, 11):
        same = (stamps.month == stamps[t].month) & (stamps.day == stamps[t].day)
        others = values[:, same & (stamps.year != stamps[t].year)]
        for i in range(2):
            known = others[i][np.isfinite(others[i])]
            expected = known.mean() if known.size >= 2 else np.nan
            np.testing.assert_allclose(found[i, t], expected, rtol=1e-12)
    assert np.isnan(found[:, stamps.strftime("%m-%d") == "02-29"]).all()  # two of them


def test_the_climatology_of_a_reference_answers_for_its_own_series():
    time = np.arange("2016-01-01", "2019-01-01", dtype="datetime64[D]")
    table = pd.DataFrame(
        {
            "row": [5, 5, 7],
            "column": [2, 2, 2],
            "group": ["0-5 cm", "50 cm", "50 cm"],
            "top": [0.0, 0.5, 0.5],
            "bottom": [0.05, 0.5, 0.5],
        }
    )
    values = np.random.default_rng(0).random((3, time.size)).astype("f4")
    reference = build_reference(time, table, values, np.ones(values.shape, "u2"))
    made = Climatology.of(reference)
    assert made.covers(0.5, 0.5)
    assert not made.covers(0.2, 0.2)
    surface = made.values(np.array([0, 1]), 0.0, 0.05)
    np.testing.assert_array_equal(surface[0], other_years_mean(values[0], time))
    assert np.isnan(surface[1]).all()
    deep = made.values(np.array([1]), 0.5, 0.5)
    np.testing.assert_array_equal(deep[0], other_years_mean(values[2], time))
    with pytest.raises(ValueError, match="no series"):
        made.values(np.array([0]), 0.2, 0.2)
