from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from deepprofile import grid
from deepprofile.regrid import axis_weights, bilinear, contiguous, lowest_neighbour


def plain_bilinear(values, latitude, longitude, target_latitude, target_longitude, period=None):
    """One target at a time, straight from the definition."""
    result = np.full((len(target_latitude), len(target_longitude)), np.nan)

    def neighbours(axis, point):
        order = np.argsort(axis)
        sorted_axis = axis[order]
        points = list(zip(sorted_axis, order, strict=True))
        if period is not None and axis is longitude:
            point = sorted_axis[0] + (point - sorted_axis[0]) % period
            points.append((sorted_axis[0] + period, order[0]))
        for (low, i), (high, j) in pairwise(points):
            if low <= point <= high:
                part = (point - low) / (high - low)
                return [(i, 1 - part), (j, part)]
        return []

    for r, lat in enumerate(target_latitude):
        for c, lon in enumerate(target_longitude):
            total = weights = 0.0
            for i, wi in neighbours(latitude, lat):
                for j, wj in neighbours(longitude, lon):
                    if wi * wj > 0 and np.isfinite(values[i, j]):
                        total += wi * wj * values[i, j]
                        weights += wi * wj
            if weights >= 0.5 - 1e-9:
                result[r, c] = total / weights
    return result


@st.composite
def regional_cases(draw):
    n_lat, n_lon = draw(st.integers(2, 7)), draw(st.integers(2, 7))
    latitude = np.linspace(-20.0, 20.0, n_lat)
    longitude = np.linspace(100.0, 140.0, n_lon)
    if draw(st.booleans()):
        latitude = latitude[::-1]
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_lat, n_lon))
    values[rng.random(values.shape) < draw(st.sampled_from([0.0, 0.3, 0.8]))] = np.nan
    targets = rng.uniform(-25, 25, 6), rng.uniform(95, 145, 6)
    return values, latitude, longitude, *targets


@settings(max_examples=60, deadline=None)
@given(regional_cases())
def test_equals_a_plain_loop_with_missing_neighbours(case):
    values, latitude, longitude, target_latitude, target_longitude = case
    rows = axis_weights(latitude, target_latitude)
    columns = axis_weights(longitude, target_longitude, period=360.0)
    found = bilinear(values[None], rows, columns)[0]
    expected = plain_bilinear(values, latitude, longitude, target_latitude, target_longitude)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("west", [-180.0, 0.0, -179.95, 0.05])
@pytest.mark.parametrize("descending", [True, False])
def test_global_grid_equals_scipy_everywhere_and_wraps(west, descending):
    rng = np.random.default_rng(1)
    latitude = np.arange(-90.0, 90.1, 5.0)
    longitude = west + np.arange(0.0, 360.0, 5.0)
    values = rng.normal(size=(latitude.size, longitude.size))
    around = np.append(longitude, longitude[0] + 360.0)
    oracle = RegularGridInterpolator(
        (latitude, around), np.concatenate([values, values[:, :1]], axis=1)
    )
    target_latitude, target_longitude = grid.latitudes()[::200], grid.longitudes()[::117]
    turned = longitude[0] + (target_longitude - longitude[0]) % 360.0
    expected = oracle(np.stack(np.meshgrid(target_latitude, turned, indexing="ij"), axis=-1))
    if descending:
        latitude, values = latitude[::-1], values[::-1]
    found = bilinear(
        values[None],
        axis_weights(latitude, target_latitude),
        axis_weights(longitude, target_longitude, period=360.0),
    )[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_regional_grid_does_not_wrap_and_nothing_is_extrapolated():
    longitude = np.arange(10.0, 20.1, 1.0)
    weights = axis_weights(longitude, [9.99, 10.0, 20.0, 20.01, -175.0], period=360.0)
    assert weights.weight.sum(axis=1).tolist() == [0.0, 1.0, 1.0, 0.0, 0.0]


def test_a_region_across_the_date_line_is_found_from_either_convention():
    longitude = np.arange(170.0, 190.1, 1.0)
    weights = axis_weights(longitude, [-175.0, 175.0], period=360.0)
    np.testing.assert_allclose((longitude[weights.index] * weights.weight).sum(1), [185.0, 175.0])


@settings(max_examples=50, deadline=None)
@given(regional_cases())
def test_a_window_gives_the_same_values_from_less_data(case):
    values, latitude, longitude, target_latitude, target_longitude = case
    rows = axis_weights(latitude, target_latitude)
    columns = axis_weights(longitude, target_longitude, period=360.0)
    row_slices, near_rows = rows.window()
    column_slices, near_columns = columns.window()
    part = np.concatenate([values[s] for s in row_slices] or [values[:0]], axis=0)
    part = np.concatenate([part[:, s] for s in column_slices] or [part[:, :0]], axis=1)
    np.testing.assert_array_equal(
        bilinear(part[None], near_rows, near_columns), bilinear(values[None], rows, columns)
    )


def test_a_window_across_the_end_of_the_axis_is_two_slices():
    longitude = np.arange(0.0, 360.0, 1.0)
    columns = axis_weights(longitude, np.array([-1.5, -0.5, 0.5, 1.5]), period=360.0)
    slices, near = columns.window()
    assert slices == (slice(0, 3), slice(358, 360))
    found = np.concatenate([longitude[s] for s in slices])[near.index]
    np.testing.assert_array_equal(found, longitude[columns.index])


def test_half_of_the_weight_is_enough_and_less_is_not():
    latitude, longitude = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    values = np.array([[[1.0, np.nan], [3.0, np.nan]]])
    rows = axis_weights(latitude, [0.5])
    columns = axis_weights(longitude, [0.5, 0.5001])
    np.testing.assert_array_equal(bilinear(values, rows, columns)[0, 0], [2.0, np.nan])


def test_land_does_not_spread_further_than_half_a_step():
    longitude = np.arange(0.0, 10.0)
    values = np.full((1, 2, 10), np.nan)
    values[:, :, 4:6] = 0.3
    found = bilinear(
        values,
        axis_weights([0.0, 1.0], [0.5]),
        axis_weights(longitude, [3.4, 3.6, 5.4, 5.6]),
    )
    assert np.isfinite(found[0, 0]).tolist() == [False, True, True, False]


@settings(max_examples=40, deadline=None)
@given(regional_cases(), st.floats(-3, 3), st.floats(-3, 3))
def test_linear_in_the_values_and_exact_for_a_constant(case, a, b):
    values, latitude, longitude, target_latitude, target_longitude = case
    rows = axis_weights(latitude, target_latitude)
    columns = axis_weights(longitude, target_longitude, period=360.0)
    one = bilinear(values[None], rows, columns)
    np.testing.assert_allclose(
        bilinear(a * values[None] + b, rows, columns), a * one + b, rtol=1e-4, atol=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(regional_cases())
def test_lowest_neighbour_is_zero_exactly_where_bilinear_is_missing(case):
    values, latitude, longitude, target_latitude, target_longitude = case
    counts = np.where(np.isnan(values), 0, 1 + np.nan_to_num(np.abs(values) * 10) // 1 % 7)
    rows = axis_weights(latitude, target_latitude)
    columns = axis_weights(longitude, target_longitude, period=360.0)
    found = lowest_neighbour(counts.astype(np.uint8), rows, columns)
    missing = np.isnan(bilinear(values[None], rows, columns)[0])
    np.testing.assert_array_equal(found == 0, missing)
    for r, c in np.argwhere(found > 0):
        used = [
            counts[rows.index[r, i], columns.index[c, j]]
            for i in range(2)
            for j in range(2)
            if rows.weight[r, i] * columns.weight[c, j] > 0
        ]
        assert found[r, c] == min(n for n in used if n > 0)


@pytest.mark.parametrize("axis", [[1.0], [0.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
def test_an_axis_that_is_not_monotonic_is_refused(axis):
    with pytest.raises(ValueError, match="strictly monotonic"):
        axis_weights(axis, [0.5])


def test_contiguous_positions():
    assert contiguous(np.array([], dtype=int)) == ()
    assert contiguous(np.array([3])) == (slice(3, 4),)
    assert contiguous(np.array([3, 4, 5])) == (slice(3, 6),)
    assert contiguous(np.array([0, 2, 97, 99])) == (slice(0, 3), slice(97, 100))
