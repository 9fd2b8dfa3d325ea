"""The kernels of triple collocation: statistics, estimates, fallback, column."""

from itertools import permutations

import numpy as np
import pytest
from collocation_series import error_variances, three_series
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile.collocation import (
    Flag,
    Statistics,
    accumulate,
    column_mean,
    column_weights,
    count_days,
    fill_invalid,
    finish,
    flag_attributes,
    median_weights,
)
from deepprofile.profile import Layer


def plain_sums(x, y, z):
    """The ten statistics by a plain loop over days and pixels."""
    sums = np.zeros((10, x.shape[1]))
    for day in range(x.shape[0]):
        for p in range(x.shape[1]):
            a, b, c = (float(values[day, p]) - 0.25 for values in (x, y, z))
            if np.isfinite(a) and np.isfinite(b) and np.isfinite(c):
                products = (1, a, b, c, a * a, b * b, c * c, a * b, a * c, b * c)
                sums[:, p] += products
    return sums


@settings(max_examples=12, deadline=None)
@given(
    n_days=st.integers(0, 5),
    n_pixels=st.sampled_from([1, 5, 1025]),
    dtypes=st.sampled_from([(np.float32,) * 3, (np.float64,) * 3]),
    pixel_major=st.booleans(),
    seed=st.integers(0, 100),
)
def test_statistics_equal_a_plain_loop(n_days, n_pixels, dtypes, pixel_major, seed):
    series = three_series(n_days, n_pixels, gaps=0.3, seed=seed)
    series = [values.astype(dtype) for values, dtype in zip(series, dtypes, strict=True)]
    if n_days:
        series[1][0, 0] = np.inf
    expected = plain_sums(*series)
    if pixel_major:
        series = [np.ascontiguousarray(values.T).T for values in series]
    np.testing.assert_allclose(accumulate(*series).sums, expected, rtol=1e-12, atol=1e-15)


def test_other_layouts_and_types_are_taken_too():
    x, y, z = three_series(20, 8, gaps=0.1)
    expected = accumulate(x, y, z).sums
    strided = np.repeat(x, 2, axis=1)[:, ::2]
    np.testing.assert_allclose(accumulate(strided, y, z).sums, expected, rtol=1e-12)
    cube = accumulate(*(values.reshape(20, 2, 4) for values in (x, y, z)))
    np.testing.assert_array_equal(cube.sums, expected.reshape(10, 2, 4))
    ones = np.ones((5, 2), dtype=np.int16)
    assert accumulate(ones, ones, ones).n_samples.tolist() == [5, 5]


def test_statistics_add_over_time():
    series = three_series(101, 7, gaps=0.2)
    total = Statistics.zeros((7,))
    for block in (slice(0, 32), slice(32, 33), slice(33, 101)):
        total = total + accumulate(*(values[block] for values in series))
    np.testing.assert_allclose(total.sums, accumulate(*series).sums, rtol=1e-12, atol=1e-14)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"shapes \(3, 2\), \(3, 1\) and \(3, 2\)"):
        accumulate(np.zeros((3, 2)), np.zeros((3, 1)), np.zeros((3, 2)))


def test_error_variances_equal_numpy_covariances():
    series = three_series(400, 30, gaps=0.2)
    found = finish(accumulate(*series), min_samples=50)
    for p in range(30):
        expected = error_variances(*(values[:, p] for values in series))
        np.testing.assert_allclose(found.error_variance[:, p], expected, rtol=1e-9)
    inverse = 1 / found.error_variance
    np.testing.assert_allclose(found.weight, inverse / inverse.sum(axis=0), rtol=1e-12)


def test_known_error_variances_and_signal_are_recovered():
    gains, errors = (1.0, 0.7, 1.2), (0.02, 0.03, 0.04)
    found = finish(accumulate(*three_series(20_000, 20, gains=gains, errors=errors)))
    assert (found.flag == Flag.VALID).all()
    np.testing.assert_allclose(
        np.median(found.error_variance, axis=1), np.square(errors), rtol=0.02
    )
    np.testing.assert_allclose(
        np.median(found.sensitivity, axis=1), np.square(0.05 * np.array(gains)), rtol=0.02
    )
    decibels = 10 * np.log10(found.sensitivity / found.error_variance)
    np.testing.assert_allclose(found.signal_to_noise, decibels)


def test_r_squared_is_that_with_the_truth():
    series = three_series(20_000, 10, gains=(1.0, 0.7, 1.2), dtype=np.float64)
    signal = 0.05 * np.random.default_rng(0).standard_normal((20_000, 10))  # as the series' own
    found = finish(accumulate(*series))
    for product, values in enumerate(series):
        known = [np.corrcoef(signal[:, p], values[:, p])[0, 1] ** 2 for p in range(10)]
        np.testing.assert_allclose(found.r_squared[product], known, atol=0.02)
    ratio = 10 ** (found.signal_to_noise / 10)
    np.testing.assert_allclose(found.r_squared, ratio / (1 + ratio))


def test_correlated_errors_give_the_known_bias():
    """Two products whose errors correlate at 0.5 look too good, the third too bad."""
    found = finish(
        accumulate(*three_series(50_000, 10, errors=(0.03, 0.03, 0.03), correlation=0.5))
    )
    ratio = np.median(found.error_variance, axis=1) / 0.03**2
    shared = 0.5 * 0.03**2
    signal = 0.05**2
    expected_pair = 1 - shared / 0.03**2
    expected_third = (0.03**2 + signal - signal**2 / (signal + shared)) / 0.03**2
    np.testing.assert_allclose(ratio, [expected_pair, expected_pair, expected_third], rtol=0.05)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations([0, 1, 2]), seed=st.integers(0, 50))
def test_order_of_products_does_not_matter(order, seed):
    series = three_series(150, 4, gaps=0.1, seed=seed)
    scale = np.array([1.0, 0.4, 2.0])
    straight = finish(accumulate(*series), scale)
    turned = finish(accumulate(*(series[i] for i in order)), scale[order])
    for name in ("weight", "error_variance", "sensitivity", "signal_to_noise", "r_squared"):
        np.testing.assert_allclose(
            getattr(turned, name), getattr(straight, name)[order], rtol=1e-9, atol=1e-16
        )
    np.testing.assert_array_equal(turned.flag > 2, straight.flag > 2)


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.1, 10.0), shift=st.floats(-2.0, 2.0))
def test_an_error_variance_is_in_the_units_of_its_product(factor, shift):
    series = three_series(300, 3, dtype=np.float64)
    before = finish(accumulate(*series))
    series[1] = factor * series[1] + shift
    after = finish(accumulate(*series))
    expected = before.error_variance * np.array([1.0, factor**2, 1.0])[:, None]
    np.testing.assert_allclose(after.error_variance, expected, rtol=1e-6)
    np.testing.assert_allclose(after.signal_to_noise, before.signal_to_noise, rtol=1e-6)


def test_scale_enters_the_weights_alone():
    series = three_series(300, 3)
    plain, scaled = (finish(accumulate(*series), scale) for scale in ((1, 1, 1), (1, 1, 0.4)))
    np.testing.assert_array_equal(scaled.error_variance, plain.error_variance)
    expected = plain.weight * np.array([1, 1, 0.4])[:, None]
    np.testing.assert_allclose(scaled.weight, expected / expected.sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_negative_error_variance_is_flagged_with_its_product(order):
    generator = np.random.default_rng(3)
    signal, y_error, z_error = 0.05 * generator.standard_normal((3, 500))
    damped = 0.25 + 0.3 * signal + 0.1 * (y_error + z_error)
    series = [damped, 0.25 + signal + y_error, 0.25 + signal + z_error]
    found = finish(accumulate(*(series[i][:, None] for i in order)))
    place = order.index(0)
    assert found.flag[0] == Flag.NEGATIVE_ERROR_VARIANCE_1 + place
    assert found.error_variance[place, 0] < 0
    assert np.isfinite(found.error_variance).all()
    assert np.isnan(found.weight).all()
    assert np.isnan(found.signal_to_noise[place, 0])
    assert np.isnan(found.r_squared[place, 0])


def test_other_flags():
    x, y, z = three_series(200, 4)
    x[101:, 0] = np.nan
    y[99:, 1] = np.nan
    z[:, 2] = 0.5 - z[:, 2]
    y[:, 3] = 0.31
    found = finish(accumulate(x, y, z), min_samples=100)
    assert found.flag.tolist() == [
        Flag.VALID,
        Flag.TOO_FEW_DAYS,
        Flag.NON_POSITIVE_COVARIANCE,
        Flag.NON_POSITIVE_COVARIANCE,
    ]
    assert found.n_samples.tolist() == [101, 99, 200, 200]
    assert np.isnan(found.error_variance[:, 1]).all()
    assert found.flag.dtype == np.uint8
    assert found.n_samples.dtype == np.int32


def test_a_product_given_twice_is_not_valid():
    x, _, z = three_series(500, 6)
    found = finish(accumulate(x, x, z))
    assert (found.flag != Flag.VALID).all()


@pytest.mark.parametrize("scale", [(1, 1), (1, 0, 1), (1, np.nan, 1), (1, -1, 1)])
def test_a_bad_scale_is_refused(scale):
    with pytest.raises(ValueError, match="three positive numbers"):
        finish(Statistics.zeros((1,)), scale)


def test_too_small_a_minimum_is_refused():
    with pytest.raises(ValueError, match="at least 2 days"):
        finish(Statistics.zeros((1,)), min_samples=1)


def test_flag_attributes_follow_cf():
    attributes = flag_attributes(("smap_l4", "era5_land", "gldas"))
    assert attributes["flag_values"].tolist() == [flag.value for flag in Flag]
    assert attributes["flag_values"].dtype == np.uint8
    meanings = attributes["flag_meanings"].split()
    assert meanings[0] == "valid"
    assert meanings[5] == "negative_error_variance_of_gldas"
    assert len(meanings) == len(Flag)


def test_flagged_cells_get_the_median_weights():
    weight = np.array([[0.2, 0.6, 0.3, 9.0], [0.5, 0.2, 0.3, 9.0], [0.3, 0.2, 0.4, 9.0]])
    flag = np.array([0, 0, 0, 4], dtype=np.uint8)
    medians = np.array([0.3, 0.3, 0.3])
    filled = fill_invalid(weight.reshape(3, 2, 2), flag.reshape(2, 2)).reshape(3, 4)
    np.testing.assert_array_equal(filled[:, :3], weight[:, :3])
    np.testing.assert_allclose(filled[:, 3], medians / medians.sum())
    assert weight[0, 3] == 9.0


def test_without_any_valid_cell_the_scale_alone_decides():
    weight, flag = np.full((3, 2), np.nan), np.ones(2, dtype=np.uint8)
    np.testing.assert_allclose(
        median_weights(weight, flag, (1, 1, 0.4)), np.array([1, 1, 0.4]) / 2.4
    )


ERA5 = [Layer("era5_land", 0, 0.07), Layer("era5_land", 0.07, 0.28), Layer("era5_land", 0.28, 1)]
GLDAS = [Layer("gldas", 0, 0.1), Layer("gldas", 0.1, 0.4), Layer("gldas", 0.4, 1)]
SMAP = [Layer("smap_l4", 0, 0.05), Layer("smap_l4", 0, 1)]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (ERA5, [0.07, 0.21, 0.72]),
        (GLDAS, [0.1, 0.3, 0.6]),
        (GLDAS[::-1], [0.6, 0.3, 0.1]),
        (SMAP, [0, 1]),
    ],
)
def test_column_weights(layers, expected):
    np.testing.assert_allclose(column_weights(layers), expected)


@pytest.mark.parametrize(
    "layers", [[], ERA5[:2], ERA5[1:], [ERA5[0], ERA5[2]], SMAP[:1], ERA5 + GLDAS]
)
def test_layers_that_do_not_tile_the_column_are_refused(layers):
    with pytest.raises(ValueError, match="do not make the column from 0 to 100 cm"):
        column_weights(layers)


def test_column_mean_is_the_thickness_weighted_mean():
    values = np.random.default_rng(0).random((4, 3, 2), dtype=np.float32)
    found = column_mean(values, ERA5, axis=1)
    expected = (7 * values[:, 0] + 21 * values[:, 1] + 72 * values[:, 2]) / 100
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_column_mean_ignores_layers_that_do_not_count_and_keeps_gaps():
    values = np.array([[np.nan, 0.3], [0.1, np.nan]], dtype=np.float32)  # (time, layer)
    np.testing.assert_array_equal(column_mean(values, SMAP, axis=-1), np.float32([0.3, np.nan]))
    with pytest.raises(ValueError, match="holds 2 layers, but 3 were named"):
        column_mean(values, ERA5, axis=-1)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_days_with_a_value_are_counted_in_the_chosen_pixels_alone(kind):
    rng = np.random.default_rng(4)
    values = rng.random((9, 5, 7)).astype(kind)
    values[rng.random(values.shape) < 0.4] = np.nan
    values[3], values[5, 1, 1] = np.nan, np.inf
    pixels = rng.random((5, 7)) < 0.6
    values[7, pixels] = np.nan  # a day on which only other pixels have a value
    count, present = count_days(values, pixels)
    there = np.isfinite(values) & pixels
    np.testing.assert_array_equal(count, there.sum(axis=0)[pixels])
    np.testing.assert_array_equal(present, there.any(axis=(1, 2)))
    assert not present[7]
    assert np.isfinite(values[7]).any()
