"""The moving-block bootstrap against a plain loop, and its coverage."""

import numpy as np
import pytest
from collocation_series import error_variances, three_series

from deepprofile.collocation import accumulate, block_bootstrap, draw_blocks, finish


def plain_bootstrap(series, day, blocks):
    """Standard errors of one pixel: every replicate is put together day by day."""
    errors, weights = [], []
    for first, stop in zip(*blocks, strict=True):
        calendar = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)])
        steps = [t for d in calendar for t in np.flatnonzero(day == d)]
        x, y, z = (values[steps] for values in series)
        errors.append(error_variances(x, y, z))
        if (errors[-1] > 0).all():
            weights.append(1 / errors[-1] / (1 / errors[-1]).sum())
    share = len(weights) / len(errors)
    return np.std(errors, axis=0, ddof=1), np.std(weights, axis=0, ddof=1), share


def test_standard_errors_equal_a_plain_loop():
    series = three_series(400, 3, gaps=0.2)
    keep = np.delete(np.arange(400), slice(100, 150))  # a gap in the calendar itself
    kept = [values[keep] for values in series]
    blocks = draw_blocks(400, 20, block_days=60, seed=4)
    found = block_bootstrap(*kept, keep, blocks)
    assert found.valid_share.min() < 1.0  # a replicate with a negative error variance is met
    for p in range(3):
        errors, weights, share = plain_bootstrap([values[:, p] for values in kept], keep, blocks)
        np.testing.assert_allclose(found.error_variance_std[:, p], errors, rtol=1e-8)
        np.testing.assert_allclose(found.weight_std[:, p], weights, rtol=1e-8)
        assert found.valid_share[p] == share


def test_every_replicate_is_as_long_as_the_series():
    first, stop = draw_blocks(400, 50, block_days=60, seed=1)
    assert ((stop - first).sum(axis=1) == 400).all()
    assert first.min() >= 0
    assert stop.max() <= 400
    again, _ = draw_blocks(400, 50, block_days=60, seed=1)
    np.testing.assert_array_equal(again, first)


def test_pixels_do_not_depend_on_each_other():
    series = three_series(200, 520, gaps=0.1)
    blocks = draw_blocks(200, 10)
    whole = block_bootstrap(*series, np.arange(200), blocks)
    part = block_bootstrap(*(values[:, 515:] for values in series), np.arange(200), blocks)
    np.testing.assert_array_equal(whole.weight_std[:, 515:], part.weight_std)


def test_a_pixel_without_data_has_no_standard_error():
    series = three_series(200, 2)
    series[0][:, 1] = np.nan
    found = block_bootstrap(*series, np.arange(200), draw_blocks(200, 10))
    assert np.isnan(found.error_variance_std[:, 1]).all()
    assert found.valid_share.tolist() == [1.0, 0.0]


def test_coverage_with_errors_that_last_a_month():
    """Two standard errors hold the truth in about 95 % of pixels; single days would not do."""
    truth = np.square([0.02, 0.03, 0.04])[:, None]
    series = three_series(3000, 120, memory=30.0, seed=7)
    estimate = finish(accumulate(*series)).error_variance

    def coverage(block_days):
        blocks = draw_blocks(3000, 60, block_days=block_days, seed=2)
        error = block_bootstrap(*series, np.arange(3000), blocks).error_variance_std
        return np.mean(np.abs(estimate - truth) < 2 * error)

    assert 0.85 < coverage(60) < 0.985
    assert coverage(1) < 0.75


@pytest.mark.parametrize(
    ("n_days", "replicates", "message"),
    [(59, 10, "does not fit a series of 59"), (400, 1, "no spread")],
)
def test_impossible_bootstraps_are_refused(n_days, replicates, message):
    with pytest.raises(ValueError, match=message):
        draw_blocks(n_days, replicates)


def test_blocks_of_a_longer_series_are_refused():
    with pytest.raises(ValueError, match="draw blocks for this series"):
        block_bootstrap(*three_series(100, 1), np.arange(100), draw_blocks(200, 5))
