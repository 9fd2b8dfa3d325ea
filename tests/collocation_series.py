"""Synthetic series whose error variances are known, and a plain-loop oracle."""

import numpy as np


def three_series(
    n_days, n_pixels, *, errors=(0.02, 0.03, 0.04), gains=(1.0, 1.0, 1.0), gaps=0.0, memory=0.0,
    correlation=0.0, seed=0, dtype=np.float32,
):  # fmt: skip
    """Signal and errors: gains and standard deviations by product, AR(1) errors if wanted.

    ``correlation`` is that between the errors of the first two products.
    """
    generator = np.random.default_rng(seed)
    signal = 0.05 * generator.standard_normal((n_days, n_pixels))
    noise = generator.standard_normal((3, n_days, n_pixels))
    noise[1] = correlation * noise[0] + np.sqrt(1 - correlation**2) * noise[1]
    if memory:
        keep = np.exp(-1.0 / memory)
        for day in range(1, n_days):
            noise[:, day] = keep * noise[:, day - 1] + np.sqrt(1 - keep**2) * noise[:, day]
    series = [
        (0.25 + gain * signal + error * noise[i]).astype(dtype)
        for i, (gain, error) in enumerate(zip(gains, errors, strict=True))
    ]
    for values in series:
        values[generator.random(values.shape) < gaps] = np.nan
    return series


def error_variances(x, y, z):
    """The three error variances of one pixel, from NumPy's covariance matrix."""
    common = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    q = np.cov(np.array([x[common], y[common], z[common]], dtype=np.float64))
    return np.array(
        [
            q[0, 0] - q[0, 1] * q[0, 2] / q[1, 2],
            q[1, 1] - q[0, 1] * q[1, 2] / q[0, 2],
            q[2, 2] - q[0, 2] * q[1, 2] / q[0, 1],
        ]
    )
