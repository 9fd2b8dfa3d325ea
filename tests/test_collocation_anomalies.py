"""Anomalies against a plain loop and against those of the evaluation."""

import numpy as np
import pytest
from collocation_series import three_series

from deepprofile.collocation import MARGIN_DAYS, accumulate, anomalies, finish
from deepprofile.evaluation.skill import metrics


def plain_anomalies(values, window, min_days):
    """Departures of one series from the mean of the days around, day by day."""
    found, half = np.full(len(values), np.nan), window // 2
    for day, value in enumerate(values):
        around = values[max(day - half, 0) : day + half + 1]
        around = around[np.isfinite(around)]
        if np.isfinite(value) and len(around) >= min_days:
            found[day] = value - around.mean()
    return found


@pytest.mark.parametrize(("window", "min_days"), [(35, 18), (5, 4), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_anomalies_equal_a_plain_loop(window, min_days, dtype):
    values = three_series(90, 6, gaps=0.4, dtype=np.float64)[0]
    values[10, 1] = np.inf
    values[40:80, 2] = np.nan
    found = anomalies(values.astype(dtype).reshape(90, 2, 3), window, min_days)
    assert found.shape == (90, 2, 3)
    assert found.dtype == dtype
    for p in range(6):
        expected = plain_anomalies(values.astype(dtype)[:, p].astype(np.float64), window, min_days)
        np.testing.assert_allclose(found.reshape(90, 6)[:, p], expected, atol=1e-7)


def test_they_are_the_anomalies_of_the_evaluation():
    values = three_series(120, 4, gaps=0.3, dtype=np.float64)[0]
    departures, there = metrics.anomalies(values.T, np.isfinite(values.T))
    expected = np.where(there, departures, np.nan).T
    np.testing.assert_allclose(anomalies(values), expected, atol=1e-14)


def test_a_part_with_its_margin_has_the_bits_of_the_whole():
    values = three_series(150, 5, gaps=0.3)[0]
    whole = anomalies(values)
    for start, stop in ((0, 32), (32, 64), (128, 150)):
        first = max(start - MARGIN_DAYS, 0)
        part = anomalies(values[first : stop + MARGIN_DAYS])[start - first : stop - first]
        np.testing.assert_array_equal(part, whole[start:stop])


def test_a_season_that_all_share_is_no_signal_of_anomalies():
    season = (0.1 * np.sin(np.arange(1460) * 2 * np.pi / 365))[:, None]
    series = [values + season for values in three_series(1460, 20, dtype=np.float64)]
    raw, departures = finish(accumulate(*series)), finish(accumulate(*map(anomalies, series)))
    signal = np.median(departures.sensitivity, axis=1)
    np.testing.assert_allclose(signal, 0.05**2, rtol=0.08)
    assert (np.median(raw.sensitivity, axis=1) > 2 * signal).all()


@pytest.mark.parametrize("window", [0, 4, -3])
def test_a_window_without_a_centre_is_refused(window):
    with pytest.raises(ValueError, match="expected an odd number"):
        anomalies(np.zeros((9, 1)), window)
