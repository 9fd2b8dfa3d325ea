"""What a trained network is like: the spread of its coefficients, and its skill by depth."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.estimates.base import ProfileEstimate
from deepprofile.evaluation.skill.tables import evaluate
from deepprofile.model.gaps import fill_gaps
from deepprofile.model.network import DeepProfile
from deepprofile.model.sliding import sliding_coefficients

CELLS_TOGETHER = 32
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SKILL = ("reference", "group", "row", "column", "n", "bias", "r", "ubrmse", "anomaly_r")
"""Columns of the table of skill."""


def held_out_coefficients(
    model: DeepProfile, samples: xr.Dataset, max_gap: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Coefficients of the validation cells on all days with a full window.

    Args:
        model: the network.
        samples: a cube of samples.
        max_gap: longest gap of the forcing in days that is filled by a straight line.

    Returns:
        Positions of the validation cells in the cube, (cells,), and their coefficients,
        (cells, T - window + 1, n), NaN where a value of the window is missing.
    """
    held = np.flatnonzero(samples["split"].values == "validation")
    parts = []
    for start in range(0, held.size, CELLS_TOGETHER):
        part = samples[["series", "auxiliary"]].isel(cell=held[start : start + CELLS_TOGETHER])
        series = fill_gaps(part["series"].values, max_gap).series
        parts.append(sliding_coefficients(model, series, part["auxiliary"].values))
    n_days = samples.sizes["time"] - model.config.window + 1
    empty = np.empty((0, n_days, model.config.n_coefficients), np.float32)
    return held, np.concatenate([empty, *parts])


def spread(coefficients: NDArray[np.float32]) -> pd.DataFrame:
    """Spread of each coefficient over cells and days.

    Args:
        coefficients: (cells, days, n) in m³ m⁻³ m⁻ⁱ.

    Returns:
        A line per coefficient: ``degree`` i, ``rms`` (root mean square), and quantiles ``q01`` to
        ``q99``; NaN where there is no cell-day.
    """
    n = coefficients.shape[2]
    values = coefficients.reshape(-1, n)
    values = values[np.isfinite(values).all(axis=1)].astype(np.float64)
    if not len(values):
        values = np.full((1, n), np.nan)
    table = pd.DataFrame({"degree": np.arange(n), "rms": np.sqrt(np.mean(values**2, axis=0))})
    for quantile, found in zip(QUANTILES, np.quantile(values, QUANTILES, axis=0), strict=True):
        table[f"q{round(100 * quantile):02d}"] = found
    return table


def skill(
    samples: xr.Dataset,
    held: NDArray[np.intp],
    coefficients: NDArray[np.float32],
    references: Mapping[str, xr.Dataset],
    min_days: int,
) -> pd.DataFrame:
    """Metrics of profiles against references of the same cells.

    Args:
        samples: the cube of samples.
        held: positions of the cells of the profiles in it.
        coefficients: (cells, days, n) on its last days.
        references: by name, see `deepprofile.evaluation.reference.series`.
        min_days: common days that a series needs.

    Returns:
        A line per series of a reference with the columns SKILL.
    """
    rows, columns = samples["row"].values[held], samples["column"].values[held]
    time = samples["time"].values[-coefficients.shape[1] :]
    estimate = ProfileEstimate("deepprofile", rows, columns, time, coefficients)
    tables = [
        evaluate([estimate], reference, name=name, min_days=min_days)[list(SKILL)]
        for name, reference in references.items()
        if reference.sizes["series"]
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(SKILL))
