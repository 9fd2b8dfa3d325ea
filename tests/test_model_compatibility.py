"""Whether a model fits forcing and features: what is named, and what is let through."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import make_forcing, make_model

from deepprofile.model.compatibility import (
    Labels,
    feature_problems,
    label_problems,
    labels_of,
    limit_problems,
    part_problems,
    setting_problems,
    untrained,
    variables_of,
)

NAMES, UNITS = ("pressure", "temperature", "rain"), ("Pa", "K", "kg m-2 s-1")
LOWEST, HIGHEST = (50_000.0, 210.0, 0.0), (105_000.0, 320.0, 1e-3)


def trained(lowest=LOWEST, highest=HIGHEST):
    """A model with the limits of real variables over land."""
    model = make_model(variables=NAMES, variable_units=UNITS)
    model.series_minimum.copy_(torch.tensor(lowest))
    model.series_maximum.copy_(torch.tensor(highest))
    return model


def weather(n=200, seed=0):
    """Forcing (n, variables) of a mild place."""
    rng = np.random.default_rng(seed)
    columns = rng.normal(95_000, 500, n), rng.normal(285, 6, n), rng.exponential(2e-5, n)
    return np.stack(columns, axis=1).astype(np.float32)


def expected(names=NAMES, units=UNITS):
    return Labels(3, names, units)


def test_what_fits_has_no_problem():
    assert label_problems("variable", expected(), variables_of(trained().config)) == []
    assert setting_problems(trained().config, window=20, n_coefficients=10) == []
    assert limit_problems(trained(), weather()) == []


def test_labels_are_those_of_the_cubes():
    forcing = make_forcing().assign_coords(units=("variable", list(UNITS)))
    assert labels_of(forcing, "variable") == Labels(3, ("rain", "heat", "snow"), UNITS)
    assert labels_of(make_forcing().drop_vars("variable"), "variable") == Labels(3, (), ())
    assert labels_of(make_forcing().assign_coords(units="m"), "variable").units == ()


@given(st.permutations(NAMES), st.permutations(UNITS))
def test_every_place_that_differs_is_named(names, units):
    problems = label_problems("variable", Labels(3, tuple(names), tuple(units)), expected())
    wrong = [i for i in range(3) if names[i] != NAMES[i]]
    if not wrong:
        wrong = [i for i in range(3) if units[i] != UNITS[i]]
    assert len(problems) == len(wrong)
    for i, problem in zip(wrong, problems, strict=True):
        assert f"number {i}" in problem


def test_number_comes_first_and_what_is_unknown_is_not_compared():
    two = Labels(2, NAMES[:2], UNITS[:2])
    assert label_problems("variable", two, expected()) == [
        "there are 2 along 'variable': the model expects 3; missing: rain"
    ]
    more = Labels(4, ("wind", *NAMES), ())
    assert label_problems("variable", more, expected()) == [
        "there are 4 along 'variable': the model expects 3; not known to it: wind"
    ]
    assert label_problems("variable", Labels(2, (), ()), expected()) == [
        "there are 2 along 'variable': the model expects 3"
    ]
    for found, wanted in ((Labels(3, (), ()), expected()), (expected(), Labels(3, (), ()))):
        assert label_problems("variable", found, wanted) == []


def test_another_window_and_number_of_coefficients_are_named():
    problems = setting_problems(trained().config, window=360, n_coefficients=4)
    assert problems == [
        "the model has window 20: asked for is 360",
        "the model has n_coefficients 10: asked for is 4",
    ]


@pytest.mark.parametrize(
    ("variable", "convert", "found"),
    [
        (0, lambda pascal: pascal / 100, "mean 95"),  # hPa
        (1, lambda kelvin: kelvin - 273.15, "mean 1"),  # °C
        (2, lambda rate: rate * 86_400, "mean 1"),  # mm a day; its median lies inside the limits
    ],
)
def test_other_units_are_named_by_the_limits(variable, convert, found):
    probe = weather()
    probe[:, variable] = convert(probe[:, variable])
    (problem,) = limit_problems(trained(), probe)
    assert f"variable number {variable} ({NAMES[variable]})" in problem
    assert found in problem
    assert f"trained with {LOWEST[variable]:.4g} to {HIGHEST[variable]:.4g} {UNITS[variable]}" in (
        problem
    )


def test_a_cold_or_rainy_place_is_no_mistake():
    cold = weather()
    cold[:, 1] -= 90  # 15 K below all that training saw
    assert limit_problems(trained(), cold) == []
    rainy = weather()
    rainy[:5, 2] = 0.05
    assert limit_problems(trained(), rainy) == []


def test_missing_and_constant_variables_are_left_out():
    probe = weather()
    probe[:, 0] = np.nan
    probe[::2, 1] = np.nan
    constant = trained((50_000.0, 210.0, 0.0), (105_000.0, 320.0, 0.0))
    probe[:, 2] = 7
    assert limit_problems(constant, probe) == []


def test_limits_that_nobody_set_are_recognised():
    untrained = trained((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    (problem,) = limit_problems(untrained, weather())
    assert "0 to 1, as before training: variable number 0 (pressure)" in problem
    assert "set_limits" in problem
    fractions = np.random.default_rng(0).random((50, 3))
    assert limit_problems(untrained, fractions) == []


def test_limits_that_are_none_are_named():
    broken = trained((50_000.0, np.nan, 1.0), (105_000.0, 320.0, 0.0))
    broken.auxiliary_maximum[1] = np.inf
    problems = limit_problems(broken, weather())
    assert [problem.split(" has limits ")[0] for problem in problems] == [
        "variable number 1 (temperature)",
        "variable number 2 (rain)",
        "feature number 1 (slope)",
    ]
    assert all("expected finite numbers" in problem for problem in problems)


@pytest.mark.parametrize(
    ("variable", "convert"),
    [
        (0, lambda pascal: pascal / 100),
        (0, lambda pascal: pascal * 100),
        (1, lambda kelvin: kelvin - 273.15),
        (2, lambda rate: rate * 86_400),
    ],
)
def test_other_units_show_in_a_part_too(variable, convert):
    part = weather()
    assert part_problems(trained(), part) == []
    part[:, variable] = convert(part[:, variable])
    (problem,) = part_problems(trained(), part)
    assert problem == limit_problems(trained(), part)[0]


def regional():
    """A model of a mild lowland with hardly any rain."""
    return trained((95_000.0, 270.0, 0.0), (102_000.0, 300.0, 1e-4))


@pytest.mark.parametrize(
    "place",
    [
        (55_000, 255, 1e-5),  # high and cold: whole arrays of it are refused
        (101_000, 312, 0),  # hot and without rain
        (90_000, 290, 1e-3),  # rain of another climate
        (90_000, 290, 4e-2),  # what the training hardly had
    ],
)
def test_a_part_in_another_climate_is_no_mistake(place):
    part = np.tile(np.float32(place), (200, 1))
    assert part_problems(regional(), part) == []


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(0.001, 1000))
def test_a_part_is_refused_only_where_the_same_array_would_be(seed, shift, scale):
    part = weather(60, seed) * scale + shift * 100
    for model in (regional(), trained((-9e4, -50.0, -130.0), (-5e4, 300.0, -14.0))):
        assert set(part_problems(model, part)) <= set(limit_problems(model, part))


def test_few_values_of_a_part_are_not_judged():
    part = weather()
    part[:, 0] = np.nan
    part[:19, 0] = 950.0
    assert part_problems(trained(), part) == []  # a window has 20 days
    part[19, 0] = 950.0
    assert len(part_problems(trained(), part)) == 1


def with_features(lowest, highest):
    model = trained()
    model.auxiliary_minimum.copy_(torch.tensor(lowest))
    model.auxiliary_maximum.copy_(torch.tensor(highest))
    return model


def test_features_of_other_units_are_named_and_those_of_other_cells_are_not():
    model = with_features((10.0, 39.6), (2200.0, 42.0))  # elevation and latitude of a small region
    cells = np.random.default_rng(0).uniform((0, 38), (1500, 44), (50, 2))
    assert feature_problems(model, cells) == []
    assert feature_problems(model, cells * (4, 0.5)) == []  # mountains near the tropics
    (problem,) = feature_problems(model, np.stack((cells[:, 0], np.radians(cells[:, 1])), axis=1))
    assert "feature number 1 (slope) lies at 0.66" in problem
    (problem,) = feature_problems(model, cells * (100, 1))
    assert "feature number 0 (elevation)" in problem


def test_a_model_is_untrained_until_limits_or_batches_say_otherwise():
    fresh = make_model(variables=NAMES, variable_units=UNITS)
    fresh.series_maximum.fill_(1)
    assert untrained(fresh)
    assert not untrained(trained())
    for name, buffer in fresh.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(3)
    assert not untrained(fresh)
