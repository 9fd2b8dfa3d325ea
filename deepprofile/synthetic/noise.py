"""Random fields that are smooth in space and remember in time."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers of one purpose; other purposes do not shift them."""
    return np.random.default_rng([seed, *purpose.encode()])


def local_km(longitude: ArrayLike, latitude: ArrayLike) -> NDArray[np.float64]:
    """Positions in km east and north of 23°E 40.8°N, shape (points, 2)."""
    east = (np.asarray(longitude, dtype=np.float64) - 23.0) * 111.2 * np.cos(np.radians(40.8))
    north = (np.asarray(latitude, dtype=np.float64) - 40.8) * 111.2
    return np.stack([east.ravel(), north.ravel()], axis=1)


def noise(
    rng: np.random.Generator,
    n_times: int,
    position: NDArray[np.float64],
    length: float,
    memory: ArrayLike = 0.0,
) -> Float32:
    """Gaussian noise of unit variance, correlated in space and time.

    Args:
        rng: random numbers.
        n_times: number of times.
        position: points in km, shape (points, 2).
        length: width in km of the Gaussian that smooths white noise.
        memory: e-folding time in time steps, scalar or shape (points,).

    Returns:
        Shape (times, points).
    """
    white = rng.standard_normal((n_times, len(position)), dtype=np.float32)
    smooth = white @ _smoothing(position, length).T
    tau = np.broadcast_to(np.asarray(memory, dtype=np.float64), len(position))
    keep = np.exp(-1.0 / np.maximum(tau, 1e-3)).astype(np.float32)
    _remember(smooth, keep)
    return smooth


def static_field(
    rng: np.random.Generator, position: NDArray[np.float64], length: float
) -> NDArray[np.float64]:
    """Smooth field with mean 0 and standard deviation 1 over the points, shape (points,)."""
    field = noise(rng, 1, position, length)[0].astype(np.float64)
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-9))


def _smoothing(position: NDArray[np.float64], length: float) -> Float32:
    """Gaussian weights (points, points); each row has unit norm, so that variance stays 1."""
    squared = ((position[:, None] - position[None]) ** 2).sum(axis=2)
    weight = np.exp(-squared / (2.0 * length**2))
    normalised = weight / np.sqrt((weight**2).sum(axis=1, keepdims=True))
    return np.asarray(normalised, dtype=np.float32)


@njit(cache=True)
def _remember(series: Any, keep: Any) -> None:  # pragma: no cover - compiled
    """First-order autoregression along the first axis, in place, unit variance kept."""
    for t in range(1, series.shape[0]):
        for p in range(series.shape[1]):
            fresh = np.sqrt(np.float32(1.0) - keep[p] * keep[p])
            series[t, p] = keep[p] * series[t - 1, p] + fresh * series[t, p]
