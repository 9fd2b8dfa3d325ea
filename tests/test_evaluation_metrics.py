"""Metrics equal NumPy's and pytesmo's, add up over time, and keep what is missing loud."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytesmo import metrics as oracle

from deepprofile.evaluation.skill.metrics import accumulate, anomalies, compare, constant, finish


def series(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.05, 0.5, shape)
    estimate = 0.7 * truth + 0.1 + rng.normal(0, 0.03, shape)
    return estimate, truth, rng.random(shape) < 0.8


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), lead=st.sampled_from([(), (3,), (2, 3)]), n=st.integers(8, 90))
def test_every_series_equals_pytesmo(seed, lead, n):
    x, y, mask = series(seed, (*lead, n))
    mask[..., :3] = True
    result = compare(x, y, mask)
    for index in np.ndindex(*lead):
        a, b = x[index][mask[index]], y[index][mask[index]]
        assert result.n[index] == a.size
        np.testing.assert_allclose(result.bias[index], oracle.bias(a, b), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(result.rmse[index], oracle.rmsd(a, b), rtol=1e-9)
        np.testing.assert_allclose(result.ubrmse[index], oracle.ubrmsd(a, b), rtol=1e-9)
        np.testing.assert_allclose(result.r[index], np.corrcoef(a, b)[0, 1], rtol=1e-9)
        np.testing.assert_allclose(result.kge[index], kling_gupta(a, b), rtol=1e-9, atol=1e-12)


def kling_gupta(simulated: np.ndarray, observed: np.ndarray) -> float:
    """As Gupta et al. (2009) write it."""
    r = np.corrcoef(simulated, observed)[0, 1]
    alpha = np.std(simulated) / np.std(observed)
    beta = np.mean(simulated) / np.mean(observed)
    return 1 - np.sqrt((r - 1) ** 2 + (alpha - 1) ** 2 + (beta - 1) ** 2)


def test_kge_of_estimates_whose_value_is_known():
    y = np.linspace(0.1, 0.4, 50)
    mask = np.ones(50, dtype=bool)
    assert compare(y, y, mask).kge == pytest.approx(1.0)
    # Twice the reference: r = 1, spread and mean twice as large.
    assert compare(2 * y, y, mask).kge == pytest.approx(1 - np.sqrt(2))
    assert np.isnan(compare(y, np.where(y > 0.25, 0.125, -0.125), mask).kge)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(1, 119), min_size=1, max_size=6, unique=True),
)
def test_statistics_of_chunks_add_up_to_those_of_the_whole(seed, cuts):
    x, y, mask = series(seed, (2, 120))
    edges = [0, *sorted(cuts), 120]
    assert len(edges) > 2
    chunks = [accumulate(x[:, a:b], y[:, a:b], mask[:, a:b]) for a, b in pairwise(edges)]
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    whole, summed = compare(x, y, mask), finish(total)
    np.testing.assert_array_equal(whole.n, summed.n)
    for name in ("bias", "r", "rmse", "ubrmse", "kge"):
        np.testing.assert_allclose(getattr(whole, name), getattr(summed, name), rtol=1e-10)


def test_a_series_has_the_same_bits_in_any_company():
    x, y, mask = series(4, (7, 200))
    together = accumulate(x, y, mask)
    for i in range(7):
        alone = accumulate(x[i], y[i], mask[i])
        for name in ("n", "x", "y", "xx", "yy", "xy", "d", "dd"):
            assert getattr(together, name)[i] == getattr(alone, name)


def test_anomalies_of_single_precision_are_those_of_double():
    x, _, mask = series(5, (300,))
    single = x.astype(np.float32)
    found, _ = anomalies(single, mask)
    np.testing.assert_array_equal(found, anomalies(single.astype(np.float64), mask)[0])


def test_values_outside_the_mask_do_not_matter():
    x, y, mask = series(1, (50,))
    expected = compare(x, y, mask)
    x[~mask], y[~mask] = np.nan, 1e9
    assert compare(x, y, mask).r == expected.r


def test_a_missing_value_inside_the_mask_stays_loud():
    x, y, mask = series(1, (2, 50))
    mask[:] = True
    x[0, 10] = np.nan
    result = compare(x, y, mask)
    assert np.isnan(result.rmse[0]) and np.isnan(result.r[0])
    assert np.isfinite(result.rmse[1])


def test_constant_and_short_series_have_no_correlation():
    y = np.linspace(0.1, 0.4, 40)
    mask = np.ones(40, dtype=bool)
    result = compare(np.full(40, 0.3, dtype=np.float32), y, mask)
    assert np.isnan(result.r) and np.isnan(result.kge) and np.isfinite(result.rmse)
    estimate_constant, reference_constant = constant(
        accumulate(np.stack([np.full(40, 0.3), y]), np.stack([y, np.full(40, 0.1)]), mask)
    )
    assert estimate_constant.tolist() == [True, False]
    assert reference_constant.tolist() == [False, True]
    mask[5:] = False
    short = compare(y, y, mask, min_days=6)
    assert short.n == 5 and np.isnan(short.bias) and np.isnan(short.rmse)
    mask[:] = False
    empty = compare(y, y, mask)
    assert empty.n == 0 and np.isnan(empty.bias)


def test_a_shift_changes_bias_and_rmse_alone():
    x, y, mask = series(3, (200,))
    before, after = compare(x, y, mask), compare(x + 0.05, y, mask)
    np.testing.assert_allclose(after.bias - before.bias, 0.05)
    np.testing.assert_allclose(after.ubrmse, before.ubrmse)
    np.testing.assert_allclose(after.r, before.r)
    np.testing.assert_allclose(after.rmse**2, after.ubrmse**2 + after.bias**2)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000), window=st.sampled_from([1, 5, 35]), min_days=st.integers(1, 30))
def test_anomalies_equal_a_plain_loop(seed, window, min_days):
    x, _, mask = series(seed, (60,))
    x[~mask] = np.nan
    departure, exists = anomalies(x, mask, window, min_days)
    for i in range(60):
        inside = slice(max(i - window // 2, 0), i + window // 2 + 1)
        values = x[inside][mask[inside]]
        assert exists[i] == (mask[i] and values.size >= min_days)
        expected = x[i] - values.mean() if exists[i] else 0.0
        np.testing.assert_allclose(departure[i], expected, atol=1e-12)


def test_anomalies_take_the_season_out():
    days = np.arange(730)
    season = 0.1 * np.sin(2 * np.pi * days / 365)
    rng = np.random.default_rng(0)
    x, y = 0.3 + season + rng.normal(0, 0.02, (2, 730))
    mask = np.ones(730, dtype=bool)
    assert compare(x, y, mask).r > 0.9
    (a, exists), (b, _) = anomalies(x, mask), anomalies(y, mask)
    assert abs(compare(a, b, exists).r) < 0.15
    with pytest.raises(ValueError, match="odd"):
        anomalies(x, mask, window=30)
