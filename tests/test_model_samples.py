"""Gap filling, the index of samples, limits and the cutting of windows."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile.model.flags import Flag, window_flags
from deepprofile.model.gaps import fill_gaps
from deepprofile.model.samples import Samples, full_windows

NAN = np.nan


def make_samples(seed=0, n_cells=4, n_variables=3, n_days=60, missing=0.0, max_gap=0):
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(n_cells, n_variables, n_days)).astype(np.float32)
    series[rng.random(series.shape) < missing] = NAN
    auxiliary = rng.normal(size=(n_cells, 2)).astype(np.float32)
    target = rng.uniform(0, 0.5, size=(n_cells, 2, n_days)).astype(np.float32)
    target[rng.random(target.shape) < 0.3] = NAN
    weight = rng.uniform(size=(n_cells, 2)).astype(np.float32)
    arrays = series, auxiliary, target, weight
    return arrays, Samples.from_arrays(*arrays, max_gap=max_gap)


def plain_fill(line, max_gap):
    out = line.copy()
    known = np.flatnonzero(~np.isnan(line))
    for left, right in pairwise(known):
        if 1 < right - left <= max_gap + 1:
            inside = np.arange(left + 1, right)
            out[inside] = np.interp(inside, [left, right], [line[left], line[right]])
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 30),
    st.floats(0, 0.9),
    st.integers(0, 5),
    st.integers(0, 10_000),
)
def test_gaps_are_filled_as_by_a_plain_loop(n_cells, n_days, missing, max_gap, seed):
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(n_cells, 2, n_days)).astype(np.float32)
    series[rng.random(series.shape) < missing] = NAN
    before = series.copy()
    filled, n_filled = fill_gaps(series, max_gap)
    expected = np.apply_along_axis(plain_fill, 2, series, max_gap)
    np.testing.assert_allclose(filled, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(n_filled, (np.isnan(series) & ~np.isnan(expected)).sum(1))
    np.testing.assert_array_equal(series, before)


def test_only_gaps_up_to_the_limit_inside_the_series_are_filled():
    line = np.array([NAN, 1, NAN, NAN, 4, NAN, NAN, NAN, 8, NAN], np.float32)
    filled, n_filled = fill_gaps(line[None, None], max_gap=2)
    np.testing.assert_array_equal(filled[0, 0], [NAN, 1, 2, 3, 4, NAN, NAN, NAN, 8, NAN])
    assert n_filled.sum() == 2


def test_negative_gap_is_refused():
    with pytest.raises(ValueError, match="max_gap is -1"):
        fill_gaps(np.zeros((1, 1, 3), np.float32), -1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 0.5), st.integers(0, 10_000))
def test_full_windows_and_flags_equal_plain_loops(n_days, window, missing, seed):
    rng = np.random.default_rng(seed)
    gone, filled = rng.random((2, 2, n_days)) < missing
    expected = np.zeros((2, n_days), bool)
    flags = np.zeros((2, max(0, n_days - window + 1)), np.uint8)
    for cell in range(2):
        for end in range(window - 1, n_days):
            days = slice(end - window + 1, end + 1)
            expected[cell, end] = not gone[cell, days].any()
            flags[cell, days.start] = (
                Flag.MISSING_FORCING
                if gone[cell, days].any()
                else Flag.GAP_FILLED
                if filled[cell, days].any()
                else Flag.VALID
            )
    np.testing.assert_array_equal(full_windows(torch.from_numpy(~gone), window), expected)
    np.testing.assert_array_equal(window_flags(gone, filled, window), flags)


@pytest.mark.parametrize("missing", [0.0, 0.02])
def test_index_holds_exactly_the_complete_windows_with_a_target(missing):
    (series, _, target, _), samples = make_samples(missing=missing)
    window = 20
    expected = [
        (cell, end)
        for cell in range(4)
        for end in range(window - 1, 60)
        if not np.isnan(series[cell, :, end - window + 1 : end + 1]).any()
        and not np.isnan(target[cell, :, end]).all()
    ]
    index = samples.sample_index(window)
    assert index.dtype == torch.int32
    assert index.tolist() == [list(pair) for pair in expected]
    chosen = samples.sample_index(window, np.array([False, True, False, True]))
    assert chosen.tolist() == [list(p) for p in expected if p[0] in (1, 3)]
    assert len(expected) > 10


def test_gathered_windows_are_the_series():
    (series, auxiliary, target, weight), samples = make_samples()
    window = 20
    index = torch.tensor([[3, 59], [0, 19], [2, 40], [2, 41]], dtype=torch.int32)
    batch = samples.gather(index, window)
    assert batch.series.shape == (4, 3, window)
    for b, (cell, end) in enumerate(index.tolist()):
        np.testing.assert_array_equal(batch.series[b], series[cell, :, end - 19 : end + 1])
        np.testing.assert_array_equal(batch.auxiliary[b], auxiliary[cell])
        np.testing.assert_array_equal(batch.target[b], target[cell, :, end])
        np.testing.assert_array_equal(batch.weight[b], weight[cell])


def test_filled_days_are_counted_and_used():
    (series, *rest), _ = make_samples()
    series[1, 2, 30] = NAN
    samples = Samples.from_arrays(series, *rest, max_gap=3)
    assert samples.n_filled == 1
    assert float(samples.series[1, 30, 2]) == pytest.approx(series[1, 2, [29, 31]].mean())


def test_limits_come_from_the_days_of_the_windows_alone():
    (series, auxiliary, *_), samples = make_samples()
    window = 20
    index = torch.tensor([[0, 30], [0, 33], [2, 59]], dtype=torch.int32)
    days = {0: slice(11, 34), 2: slice(40, 60)}
    used = np.concatenate([series[cell, :, part] for cell, part in days.items()], axis=1)
    limits = samples.limits(index, window)
    np.testing.assert_array_equal(limits.series[0], used.min(1))
    np.testing.assert_array_equal(limits.series[1], used.max(1))
    np.testing.assert_array_equal(limits.auxiliary[0], auxiliary[[0, 2]].min(0))
    assert used.max() < series.max()  # days outside would have changed the limits
    with pytest.raises(ValueError, match="empty index"):
        samples.limits(index[:0], window)


def test_mean_target_counts_what_is_there():
    (_, _, target, _), samples = make_samples()
    index = samples.sample_index(20)
    values = np.concatenate([target[cell, :, end] for cell, end in index.tolist()])
    assert samples.mean_target(index) == pytest.approx(np.nanmean(values), rel=1e-6)


def test_arrays_that_do_not_belong_together_are_refused():
    (series, auxiliary, target, weight), _ = make_samples()
    with pytest.raises(ValueError, match="don't belong together"):
        Samples.from_arrays(series[:, :, 1:], auxiliary, target, weight)
    target[1, 0, 7] = np.inf
    with pytest.raises(ValueError, match="target of cell 1 holds an infinite value"):
        Samples.from_arrays(series, auxiliary, target, weight)
    target[1, 0, 7] = NAN
    weight[2, 1] = NAN
    with pytest.raises(ValueError, match="the first is cell 2"):
        Samples.from_arrays(series, auxiliary, target, weight)
