"""Depth groups, the midpoint rule, and what products, profiles and means say about a depth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile.evaluation.estimates.base import (
    LayerEstimate,
    MeanEstimate,
    ProfileEstimate,
    positions,
)
from deepprofile.evaluation.estimates.layers import request_weights
from deepprofile.evaluation.reference.depths import (
    DEPTH_GROUPS,
    column_weights,
    compared_bounds,
    depth_group,
    nominal_depth,
)
from deepprofile.evaluation.reference.series import truth_reference

SMAP = [(0.0, 0.05), (0.0, 1.0)]
ERA5 = [(0.0, 0.07), (0.07, 0.28), (0.28, 1.0)]
GLDAS = [(0.0, 0.1), (0.1, 0.4), (0.4, 1.0)]
TIME = np.datetime64("2020-01-01") + np.arange(6)
ROW, COLUMN = np.array([5, 6, 7]), np.array([10, 10, 11])
ALL = np.arange(3)


def layer_estimate(layers, seed=0, name="product"):
    values = np.random.default_rng(seed).uniform(0.1, 0.4, (3, 6, len(layers)))
    return LayerEstimate(name, ROW, COLUMN, TIME, layers, values)


def profile_estimate(seed=0):
    coefficients = np.random.default_rng(seed).normal(0.2, 0.05, (3, 6, 10))
    return ProfileEstimate("profile", ROW, COLUMN, TIME, coefficients)


@pytest.mark.parametrize(
    ("depth", "nominal"),
    [
        (0.0508, 0.05),
        (0.1016, 0.10),
        (0.2032, 0.20),
        (0.3048, 0.30),
        (0.508, 0.50),
        (0.51, 0.50),
        (1.016, 1.0),
        (np.float32(0.1), 0.10),
        (0.07, 0.07),
        (0.52, 0.52),
        (0.0, 0.0),
    ],
)
def test_inches_become_nominal_depths(depth, nominal):
    assert nominal_depth(float(depth)) == pytest.approx(nominal, abs=1e-6)


@pytest.mark.parametrize(
    ("depth", "group"),
    [
        (0.0, "0-5 cm"),
        (0.05, "0-5 cm"),
        (0.051, "5-10 cm"),
        (0.10, "5-10 cm"),
        (0.12, None),
        (0.15, "15 cm"),
        (0.20, "20 cm"),
        (0.25, "20-30 cm"),
        (0.30, "20-30 cm"),
        (0.35, None),
        (0.40, "40-45 cm"),
        (0.45, "40-45 cm"),
        (0.47, None),
        (0.50, "50 cm"),
        (0.55, None),
        (0.60, "60-80 cm"),
        (0.80, "60-80 cm"),
        (0.9, None),
        (1.0, "100 cm"),
        (1.2, None),
    ],
)
def test_groups_of_depths(depth, group):
    assert depth_group(depth, depth) == group


@pytest.mark.parametrize(
    ("top", "bottom", "group"),
    [
        (0.0, 0.05, "0-5 cm"),
        (0.0, 0.10, "5-10 cm"),
        (0.0, 0.06, "5-10 cm"),
        (0.0, 0.17, "5-10 cm"),
        (0.0, 0.30, "15 cm"),
        (0.0, 0.50, "20-30 cm"),
        (0.0, 0.70, None),
    ],
)
def test_groups_of_layer_readings(top, bottom, group):
    assert depth_group(top, bottom) == group


@given(st.floats(0, 1.2))
def test_no_depth_belongs_to_two_groups(depth):
    assert sum(group.holds(depth) for group in DEPTH_GROUPS) <= 1


def test_only_the_surface_group_is_compared_over_other_bounds():
    assert compared_bounds("0-5 cm", 0.02, 0.02) == (0.0, 0.05)
    assert compared_bounds("50 cm", 0.5, 0.5) == (0.5, 0.5)
    assert compared_bounds("5-10 cm", 0.0, 0.17) == (0.0, 0.17)


def test_midpoint_rule_by_hand():
    weights = column_weights([0.05, 0.10, 0.20, 0.50, 1.0])
    np.testing.assert_allclose(weights, [0.075, 0.075, 0.20, 0.40, 0.25])
    np.testing.assert_allclose(column_weights([0.3]), [1.0])


@settings(deadline=None)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=9, unique=True))
def test_midpoint_rule_is_the_integral_of_the_nearest_sensor(centimetres):
    z = np.sort(centimetres) / 100
    weights = column_weights(z)
    assert weights.sum() == pytest.approx(1.0) and (weights > 0).all()
    fine = (np.arange(20_000) + 0.5) / 20_000
    nearest = np.abs(fine[:, None] - z).argmin(axis=1)
    counted = np.bincount(nearest, minlength=z.size) / fine.size
    np.testing.assert_allclose(weights, counted, atol=2e-4)


@pytest.mark.parametrize("bad", [[], [0.2, 0.1], [0.1, 0.1], [0.1, 1.2], [-0.1, 0.5]])
def test_impossible_columns_are_refused(bad):
    with pytest.raises(ValueError, match="do not make a column"):
        column_weights(bad)


@pytest.mark.parametrize(
    ("layers", "top", "bottom", "expected"),
    [
        (SMAP, 0.0, 0.05, [1, 0]),
        (SMAP, 0.0, 1.0, [0, 1]),
        (SMAP, 0.03, 0.03, [1, 0]),
        (SMAP, 0.05, 0.05, [1, 0]),
        (SMAP, 0.2, 0.2, [0, 1]),
        (SMAP, 0.9, 1.0, [0, 1]),
        (SMAP, 0.0, 0.17, [1, 0]),
        (SMAP, 0.0, 0.5, [0, 1]),
        (ERA5, 0.0, 0.05, [1, 0, 0]),
        (ERA5, 0.0, 0.0, [1, 0, 0]),
        (ERA5, 0.28, 0.28, [0, 1, 0]),
        (ERA5, 0.281, 0.281, [0, 0, 1]),
        (ERA5, 0.0, 1.0, [0.07, 0.21, 0.72]),
        (ERA5, 0.0, 0.17, [7 / 17, 10 / 17, 0]),
        (GLDAS, 0.0, 1.0, [0.1, 0.3, 0.6]),
        (GLDAS, 1.0, 1.0, [0, 0, 1]),
        (GLDAS, 0.9, 1.0, [0, 0, 1]),
    ],
)
def test_layers_that_answer_a_request(layers, top, bottom, expected):
    np.testing.assert_allclose(request_weights(layers, top, bottom), expected, atol=1e-12)


def test_nearest_is_the_layer_that_holds_the_depth_not_the_one_with_the_nearest_middle():
    """20 cm is nearer to the middle of 0-5 cm than to that of 0-100 cm, and lies in the second."""
    np.testing.assert_array_equal(request_weights(SMAP, 0.2, 0.2), [0, 1])
    np.testing.assert_array_equal(request_weights(GLDAS, 0.45, 0.45), [0, 0, 1])
    assert request_weights(GLDAS[:2], 0.41, 0.41) is None


def test_a_value_has_the_same_bits_in_any_company():
    rng = np.random.default_rng(0)
    row, time = np.arange(9), np.datetime64("2020-01-01") + np.arange(7)
    beta = rng.normal(0.2, 0.05, (9, 7, 10)).astype("f4")
    profiles = ProfileEstimate("profile", row, row, time, beta)
    layers = LayerEstimate("era5", row, row, time, ERA5, rng.random((9, 7, 3)).astype("f4"))
    for estimate in (profiles, layers, MeanEstimate.of("mean", [profiles, layers])):
        together = estimate.values(row, 0.0, 1.0)
        for cell in range(9):
            alone = estimate.values(np.array([cell]), 0.0, 1.0)
            np.testing.assert_array_equal(together[cell], alone[0])


def test_a_product_without_the_depth_does_not_cover_it():
    shallow = layer_estimate(GLDAS[:2])
    assert shallow.covers(0.2, 0.2) and shallow.covers(0.0, 0.4)
    assert not shallow.covers(0.5, 0.5) and not shallow.covers(0.0, 1.0)
    with pytest.raises(ValueError, match=r"'product' says nothing about 0.5 to 0.5 m"):
        shallow.values(ALL, 0.5, 0.5)


def test_layer_estimate_selects_cells_and_ignores_the_gaps_of_other_layers():
    estimate = layer_estimate(ERA5)
    estimate.soil_moisture[:, :, 2] = np.nan
    values = estimate.values(np.array([2, 0]), 0.1, 0.1)
    np.testing.assert_array_equal(values, estimate.soil_moisture[[2, 0], :, 1])
    assert np.isnan(estimate.values(ALL, 0.0, 1.0)).all()


def test_profile_estimate_equals_direct_integration():
    estimate = profile_estimate()
    z = np.linspace(0.2, 0.6, 4001)
    coefficients = estimate.coefficients[1, 3]
    theta = np.polynomial.polynomial.polyval(z, coefficients)
    np.testing.assert_allclose(estimate.values(ALL, 0.3, 0.3)[1, 3], theta[1000], rtol=1e-9)
    np.testing.assert_allclose(
        estimate.values(ALL, 0.2, 0.6)[1, 3], np.trapezoid(theta, z) / 0.4, rtol=1e-6
    )
    assert not estimate.covers(0.0, 1.2)
    with pytest.raises(ValueError, match="says nothing about"):
        estimate.values(ALL, 1.2, 1.2)


def test_plain_and_weighted_means():
    members = [layer_estimate(layers, i, str(i)) for i, layers in enumerate((SMAP, ERA5, GLDAS))]
    parts = np.stack([member.values(ALL, 0.0, 1.0) for member in members])
    plain = MeanEstimate.of("mean", members)
    np.testing.assert_allclose(plain.values(ALL, 0.0, 1.0), parts.mean(axis=0))
    weights = np.array([[2.0, 1.0, 1.0], [0.0, 0.0, 3.0], [np.nan, 1.0, 1.0]])
    weighted = MeanEstimate.of("weighted", members, weights)
    values = weighted.values(np.array([1, 0, 2]), 0.0, 1.0)
    np.testing.assert_allclose(values[0], parts[2, 1])
    np.testing.assert_allclose(values[1], [0.5, 0.25, 0.25] @ parts[:, 0])
    assert np.isnan(values[2]).all()
    no_weight = MeanEstimate.of("none", members, np.zeros((3, 3)))
    assert np.isnan(no_weight.values(ALL, 0.0, 1.0)).all()


def test_a_mean_lacks_the_days_that_a_member_lacks():
    members = [layer_estimate(SMAP, 0, "a"), layer_estimate(ERA5, 1, "b")]
    members[1].soil_moisture[0, 2] = np.nan
    missing = np.isnan(MeanEstimate.of("mean", members).values(ALL, 0.0, 0.05))
    assert missing.sum() == 1 and missing[0, 2]


def test_a_mean_covers_what_all_members_cover():
    members = [layer_estimate(SMAP, 0, "a"), layer_estimate(GLDAS[:2], 1, "b")]
    mean = MeanEstimate.of("mean", members)
    assert mean.covers(0.2, 0.2) and not mean.covers(0.5, 0.5)


def test_inconsistent_estimates_are_refused():
    values = np.zeros((3, 6, 2))
    with pytest.raises(ValueError, match=r"shape \(3, 6, 2\), expected \(3, 6, 3\)"):
        LayerEstimate("x", ROW, COLUMN, TIME, ERA5, values)
    with pytest.raises(ValueError, match="has a cell twice"):
        LayerEstimate("x", np.array([5, 5, 7]), np.array([1, 1, 1]), TIME, SMAP, values)
    with pytest.raises(ValueError, match="has a day twice"):
        LayerEstimate("x", ROW, COLUMN, np.repeat(TIME[:3], 2), SMAP, values)
    with pytest.raises(ValueError, match="coefficients has shape"):
        ProfileEstimate("x", ROW, COLUMN, TIME, np.zeros((3, 5, 10)))
    other = LayerEstimate("late", ROW, COLUMN, TIME + 1, SMAP, values)
    with pytest.raises(ValueError, match="other cells or days"):
        MeanEstimate.of("mean", [layer_estimate(SMAP), other])
    with pytest.raises(ValueError, match="weights has shape"):
        MeanEstimate.of("mean", [layer_estimate(SMAP)], np.ones((3, 2)))


@given(
    available=st.lists(st.integers(0, 30), unique=True),
    wanted=st.lists(st.integers(0, 30)),
)
def test_positions_equal_a_plain_search(available, wanted):
    result = positions(np.array(wanted, dtype=np.int64), np.array(available, dtype=np.int64))
    assert list(result) == [available.index(w) if w in available else -1 for w in wanted]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 500), n_layers=st.integers(2, 20))
def test_truth_over_layers_equals_the_mean_of_a_fine_column(seed, n_layers):
    rng = np.random.default_rng(seed)
    inner = rng.choice(np.arange(1, 100), n_layers - 1, replace=False)
    edges = np.concatenate(([0], np.sort(inner), [100])) / 100
    values = rng.uniform(0.1, 0.4, (2, n_layers, 3))
    reference = truth_reference(values, edges, TIME[:3], [5, 6], [10, 10])
    fine = np.repeat(values, np.round(np.diff(edges) * 100).astype(int), axis=1)
    for group, part in [
        ("0-5 cm", slice(0, 5)),
        ("90-100 cm", slice(90, 100)),
        ("0-100 cm", slice(0, 100)),
    ]:
        found = reference.sel(series=reference["group"].to_numpy() == group)["soil_moisture"]
        np.testing.assert_allclose(found, fine[:, part].mean(axis=1), rtol=1e-5)


def test_truth_at_depths_of_a_linear_column_is_the_line():
    edges = np.linspace(0, 1, 21)
    middles = (edges[1:] + edges[:-1]) / 2
    values = np.broadcast_to((0.1 + 0.3 * middles)[None, :, None], (1, 20, 2))
    reference = truth_reference(values, edges, TIME[:2], [5], [10])
    at_depth = (reference["top"] == reference["bottom"]).to_numpy()
    part = reference.sel(series=at_depth)
    expected = 0.1 + 0.3 * np.minimum(part["top"].to_numpy(), middles[-1])
    np.testing.assert_allclose(part["soil_moisture"][:, 0], expected, rtol=1e-6)
    names = [group.name for group in DEPTH_GROUPS]
    assert list(reference["group"].to_numpy()) == [*names, "90-100 cm", "0-100 cm"]
    assert (reference["n_stations"] == 0).all()


@pytest.mark.parametrize("edges", [[0, 0.5], [0.1, 0.5, 1.0], [0, 0.5, 0.9], [0, 1.0, 1.0]])
def test_truth_needs_interfaces_from_0_to_1_m(edges):
    with pytest.raises(ValueError, match="expected 3 depths increasing from 0 to 1 m"):
        truth_reference(np.zeros((1, 2, 3)), edges, TIME[:3], [5], [10])
