"""Whether a model fits forcing and features: what is named, and what is let through."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_support import make_forcing, make_model

from deepprofile.model.compatibility import (
    Labels,
    label_problems,
    labels_of,
    limit_problems,
    setting_problems,
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
