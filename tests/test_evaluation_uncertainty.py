"""Intervals, ranks and climatology against plain loops and other libraries."""

import numpy as np
import pandas as pd
import pytest
from evaluation_support import block_starts, memory_noise
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deepprofile.evaluation.estimates.climatology import Climatology, other_years_mean
from deepprofile.evaluation.reference.series import build_reference
from deepprofile.evaluation.skill.metrics import compare
from deepprofile.evaluation.skill.ranks import spearman
from deepprofile.evaluation.skill.uncertainty import (
    draw,
    interval,
    replicate_metrics,
    span_days,
)

NAMES = ("bias", "r", "rmse", "ubrmse", "kge")


def some_series(seed=0, shape=(3, 400)):
    rng = np.random.default_rng(seed)
    truth = 0.25 + 0.05 * memory_noise(rng, shape)
    estimates = 0.02 + truth + 0.03 * memory_noise(rng, (2, *shape))
    return estimates, truth, rng.random(shape) < 0.8


def test_replicates_are_the_metrics_of_series_put_together_from_blocks():
    estimates, truth, mask = some_series()
    mask[1, :40] = False
    mask[1, 390:] = False
    draws = draw(400, replicates=7, block_days=60, seed=3)
    found = replicate_metrics(estimates, truth, mask, draws, 60)
    for i in range(3):
        known = np.flatnonzero(mask[i])
        starts = block_starts(known[0], known[-1], draws, 60)
        assert starts.shape == (7, -(-(known[-1] - known[0] + 1) // 60))
        assert starts.min() >= known[0] and starts.max() + 59 <= known[-1]
        for r, firsts in enumerate(starts):
            days = np.concatenate([np.arange(first, first + 60) for first in firsts])
            expected = compare(estimates[:, i][:, days], truth[i, days], mask[i, days])
            np.testing.assert_array_equal(found.n[:, i, r], expected.n)
            for name in NAMES:
                np.testing.assert_allclose(
                    getattr(found, name)[:, i, r], getattr(expected, name), rtol=1e-9, atol=1e-12
                )


def test_replicates_do_not_depend_on_the_calendar_or_on_other_series():
    estimates, truth, mask = some_series()
    whole = replicate_metrics(estimates, truth, mask, draw(400, 9))
    pad = [(0, 0), (150, 333)]
    later = replicate_metrics(
        np.pad(estimates[1, 2:], pad),
        np.pad(truth[2:], pad),
        np.pad(mask[2:], pad),
        draw(883, 9),
    )
    np.testing.assert_allclose(later.r[0], whole.r[1, 2], rtol=1e-9)
    alone = replicate_metrics(estimates[1, 2], truth[2], mask[2], draw(400, 9))
    np.testing.assert_array_equal(alone.r, whole.r[1, 2])


def test_block_starts_are_spread_over_the_whole_series():
    starts = block_starts(10, 709, draw(800, 2000), 60).ravel()
    assert (starts.min(), starts.max()) == (10, 650)
    assert stats.kstest(starts, stats.randint(10, 651).cdf).statistic < 0.01


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """400 series of 1,200 days whose true bias is known; days taken as independent fail."""
    rng = np.random.default_rng(5)
    truth = 0.25 + 0.05 * memory_noise(rng, (400, 1200))
    estimate = truth + 0.01 + 0.03 * memory_noise(rng, truth.shape)
    mask = rng.random(truth.shape) < 0.9
    found = replicate_metrics(estimate, truth, mask, draw(1200, 300))
    ends = interval(found.bias)
    covered = np.mean((ends.low < 0.01) & (ends.high > 0.01))
    # Its own sampling error is 0.013; a percentile interval of 20 blocks is a little too narrow.
    assert 0.88 < covered < 0.97
    spread = 1.96 * np.where(mask, estimate - truth, np.nan)
    alone = np.nanstd(spread, axis=1) / np.sqrt(mask.sum(axis=1))
    middle = compare(estimate, truth, mask).bias
    assert np.mean(np.abs(middle - 0.01) < alone) < 0.6


def test_a_paired_difference_is_known_better_than_either():
    rng = np.random.default_rng(8)
    truth = 0.25 + 0.05 * memory_noise(rng, (40, 1200))
    common = truth + 0.03 * memory_noise(rng, truth.shape)
    pair = np.stack([common, common + 0.01 * rng.normal(size=truth.shape)])
    found = replicate_metrics(pair, truth, np.ones(truth.shape, bool), draw(1200, 300))
    each, gain = interval(found.r), interval(found.r[0] - found.r[1])
    assert np.median(gain.high - gain.low) < 0.5 * np.median(each.high - each.low)
    assert np.mean(gain.low > 0) > 0.9
    same = interval(found.r[0] - found.r[0])
    assert np.all((same.low == 0) & (same.high == 0))


def test_no_interval_of_a_series_too_short_for_blocks():
    estimates, truth, mask = some_series()
    mask[0, 150:] = False
    mask[1, [0, -1]], mask[1, 10:-10] = True, False  # long enough, and hardly a day inside
    np.testing.assert_array_equal(span_days(mask)[1:], [400, span_days(mask[2])])
    found = replicate_metrics(estimates, truth, mask, draw(400, 50))
    assert np.isnan(found.bias[:, 0]).all()
    ends = interval(found.bias)
    assert np.isnan(ends.low[:, :2]).all() and np.isnan(ends.high[:, :2]).all()
    assert np.isfinite(ends.low[:, 2]).all()
    assert span_days(np.zeros((2, 5), bool)).tolist() == [0, 0]
    with pytest.raises(ValueError, match="draw for this series"):
        replicate_metrics(estimates, truth, mask, draw(300, 5))


def test_limits_are_numpys_quantiles_of_the_replicates_that_have_a_value():
    values = np.random.default_rng(0).normal(size=(4, 200))
    values[1, :20] = np.nan
    values[2, :21] = np.nan
    ends = interval(values, 0.9)
    for i in (0, 1, 3):
        expected = np.nanquantile(values[i], (0.05, 0.95))
        np.testing.assert_allclose((ends.low[i], ends.high[i]), expected, rtol=1e-12)
    assert np.isnan(ends.low[2]) and np.isnan(ends.high[2])  # more than a tenth is missing
    assert np.isnan(interval(np.zeros((2, 0))).low).all()
    with pytest.raises(ValueError, match="level is 95"):
        interval(np.zeros((2, 3)), 95)


@settings(deadline=None, max_examples=30)
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
    assert np.isnan(spearman(x, y, mask, min_days=n + 1)).all()


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
            # rounded to float32: a sum in another order may round to the next one
            np.testing.assert_allclose(found[i, t], expected, rtol=2**-23)
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


def test_two_series_of_a_cell_and_bounds_share_the_mean_of_their_climatologies():
    time = np.arange("2016-01-01", "2019-01-01", dtype="datetime64[D]")
    table = pd.DataFrame({"row": [5, 5], "column": 2, "group": ["50 cm", "0-100 cm"]})
    table["top"], table["bottom"] = 0.0, 1.0
    values = np.random.default_rng(0).random((2, time.size)).astype("f4")
    values[1, :400] = np.nan
    reference = build_reference(time, table, values, np.ones(values.shape, "u2"))
    found = Climatology.of(reference).values(np.array([0]), 0.0, 1.0)
    each = other_years_mean(values, time)
    expected = np.where(np.isfinite(each[1]), (each[0] + each[1]) / 2, each[0])
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)
