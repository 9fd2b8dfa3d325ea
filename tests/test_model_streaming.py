"""Prediction in segments: the same as in one piece, every day of forcing read once."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile.model.flags import Flag
from deepprofile.model.gaps import fill_gaps
from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import Rectangle, margins, predict_windows
from deepprofile.model.rolling import RollingSeries
from deepprofile.model.streaming import Stretch, stream_profiles

WINDOW, BLOCK, VARIABLES = 20, 8, 2
ROWS, COLUMNS = 2, 3


def make_model():
    torch.manual_seed(3)
    model = DeepProfile(
        n_variables=VARIABLES,
        n_auxiliary=1,
        window=WINDOW,
        filters=(6, 4),
        pooling=(2, 5),
        width=16,
        head_width=8,
    )
    return model.eval()


MODEL = make_model()


def forcing_with_gaps(n_days, missing, seed):
    """Forcing (days, variables, rows, columns) with single missing values and runs of them."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_days, VARIABLES, ROWS, COLUMNS)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    for _ in range(int(n_days * missing)):
        start, length = rng.integers(n_days), rng.integers(1, 7)
        values[start : start + length, rng.integers(VARIABLES), rng.integers(ROWS)] = np.nan
    return values


def rectangle():
    land = np.ones((ROWS, COLUMNS), bool)
    land[0, 1] = False
    auxiliary = np.linspace(0, 1, ROWS * COLUMNS, dtype=np.float32).reshape(1, ROWS, COLUMNS)
    auxiliary[0, 1, 2] = np.nan
    return Rectangle(land, auxiliary)


def streamed(forcing, blocks, period, max_gap, segment):
    """Coefficients and flags of the blocks, and the days that were read."""
    read_days = []

    def read(start, stop):
        assert start // BLOCK == (stop - 1) // BLOCK
        read_days.extend(range(start, stop))
        return forcing[start:stop]

    stretch = Stretch(blocks, period, margins(WINDOW, max_gap), BLOCK)
    options = {"max_gap": max_gap, "segment": segment}
    parts = list(stream_profiles(MODEL, rectangle(), stretch, read, **options))
    assert [index for index, _ in parts] == list(blocks)
    coefficients = np.concatenate([profiles.coefficients for _, profiles in parts])
    return coefficients, np.concatenate([profiles.flag for _, profiles in parts]), read_days


@settings(deadline=None, max_examples=40)
@given(
    start=st.integers(0, 20),
    n_days=st.integers(60, 120),
    n_blocks=st.integers(1, 9),
    missing=st.sampled_from([0.0, 0.005, 0.03]),
    max_gap=st.sampled_from([0, 1, 3, 11]),
    seed=st.integers(0, 99),
)
def test_segments_do_not_matter(start, n_days, n_blocks, missing, max_gap, seed):
    forcing = forcing_with_gaps(n_days, missing, seed)
    first = (start + WINDOW - 1) // BLOCK
    blocks = range(first, min(first + n_blocks, -(-n_days // BLOCK)))
    period = (start, n_days)
    whole, flag, read_days = streamed(forcing, blocks, period, max_gap, len(blocks))
    for segment in (1, 2, 5):
        parts, flag_of_parts, read_again = streamed(forcing, blocks, period, max_gap, segment)
        assert read_again == read_days == sorted(set(read_days))
        np.testing.assert_array_equal(flag_of_parts, flag)
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)
    first_half = blocks[: -(-len(blocks) // 2)]
    part, flag_of_part, _ = streamed(forcing, first_half, period, max_gap, 3)
    np.testing.assert_array_equal(flag_of_part, flag[: len(flag_of_part)])
    np.testing.assert_allclose(part, whole[: len(part)], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("segment", [1, 2, 4])
def test_every_cell_and_day_is_as_window_by_window(segment):
    n_days, max_gap = 61, 3
    forcing = forcing_with_gaps(n_days, 0.02, 5)
    forcing[31:33, 0, 0, 0] = np.nan  # across the boundary between two blocks
    forcing[50:54, 1, 1, 0] = np.nan  # too long
    coefficients, flag, _ = streamed(forcing, range(2, 8), (4, n_days), max_gap, segment)
    series, n_filled = fill_gaps(forcing[4:].reshape(57, VARIABLES, -1).transpose(2, 1, 0), max_gap)
    place = rectangle()
    expected = predict_windows(MODEL, series[place.cells], place.features)
    for i, cell in enumerate(place.cells):
        row, column = divmod(cell, COLUMNS)
        for day in range(16, n_days):
            value, found = coefficients[day - 16, :, row, column], flag[day - 16, row, column]
            window = day - WINDOW + 1 - 4  # of the days from the first one
            if window < 0:
                assert found == Flag.NO_FULL_WINDOW
                assert np.isnan(value).all()
            elif np.isnan(expected[i, window]).any():
                assert found == Flag.MISSING_FORCING
                assert np.isnan(value).all()
            else:
                filled = n_filled[cell, window : window + WINDOW].any()
                assert found == (Flag.GAP_FILLED if filled else Flag.VALID)
                np.testing.assert_allclose(value, expected[i, window], rtol=1e-4, atol=1e-6)
    assert set(np.unique(flag)) == {flag.value for flag in Flag}
    assert (flag[:, 0, 1] == Flag.NOT_LAND).all()
    assert (flag[:, 1, 2] == Flag.MISSING_FEATURES).all()


def test_only_what_is_needed_is_read_and_held():
    forcing = forcing_with_gaps(120, 0.0, 1)
    stretch = Stretch(range(6, 11), (0, 120), margins(WINDOW, 3), BLOCK)
    *_, read_days = streamed(forcing, range(6, 11), (0, 120), 3, 2)
    assert read_days == list(range(48 - 19 - 3, 88 + 3))
    assert stretch.capacity(1) == 22 + 8 + 8
    assert stretch.capacity(5) == stretch.capacity(50) == 91 - 26


@settings(deadline=None, max_examples=60)
@given(
    cuts=st.lists(st.integers(0, 40), max_size=6),
    missing=st.sampled_from([0.02, 0.2, 0.6]),
    max_gap=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_gaps_are_filled_and_counted_as_in_one_piece(cuts, missing, max_gap, seed):
    rng = np.random.default_rng(seed)
    forcing = rng.normal(size=(40, VARIABLES, 5, 7)).astype(np.float32)
    forcing[rng.random(forcing.shape) < missing] = np.nan
    cells = np.flatnonzero(rng.random(35) < 0.8)
    rolling = RollingSeries(cells, VARIABLES, 40, 0, max_gap)
    bounds = [0, *sorted(cuts), 40]
    for start, stop in pairwise(bounds):
        rolling.append(forcing[start:stop])
    series = forcing.reshape(40, VARIABLES, -1).transpose(2, 1, 0)[cells]
    expected, n_filled = fill_gaps(series, max_gap)
    np.testing.assert_array_equal(rolling.values(0, 40), expected)
    np.testing.assert_array_equal(rolling.n_filled(0, 40), n_filled)
    np.testing.assert_array_equal(rolling.n_missing(0, 40), np.isnan(expected).sum(axis=1))


def test_days_that_do_not_fit_are_refused():
    rolling = RollingSeries(np.arange(6), VARIABLES, 10, 0, 3)
    rolling.append(np.zeros((8, VARIABLES, ROWS, COLUMNS), np.float32))
    with pytest.raises(ValueError, match="at most 2 days"):
        rolling.append(np.zeros((3, VARIABLES, ROWS, COLUMNS), np.float32))
    rolling.drop_before(5)
    rolling.append(np.zeros((7, VARIABLES, ROWS, COLUMNS), np.float32))
    assert (rolling.first, rolling.stop) == (5, 15)
    with pytest.raises(ValueError, match="3 variables: expected 2"):
        rolling.append(np.zeros((0, 3, ROWS, COLUMNS), np.float32))
