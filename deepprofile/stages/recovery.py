"""How well triple collocation found the error variances of the demo Earth, where they are known."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepprofile.collocation import Flag, column_mean
from deepprofile.evaluation.estimates.base import positions
from deepprofile.stages.context import Context
from deepprofile.store import layers_of, open_cube, read_cells
from deepprofile.synthetic import read_truth, truth_layer

REGIONS = {
    "independent": "independent errors",
    "correlated": "correlated errors",
    "": "the rest",
}


def error_recovery(context: Context) -> pd.DataFrame:
    """Estimated over realised error variance of the 0-100 cm column, by region and product.

    The realised error variance of a product is the variance of what remains when the truth is
    scaled to it (least squares) on the days on which all three products exist.

    Returns:
        A line per region and product: ``region``, ``product``, ``cells`` in the region,
        ``valid`` of them, median and quartiles of the ratio over valid cells, and with a
        bootstrap ``within_two``: the share of valid cells whose estimate lies within two standard
        errors of the realised value.
    """
    paths, recipe = context.paths, context.recipe
    truth = read_truth(paths.truth)
    rows, columns = truth["row"].values, truth["column"].values
    reference = truth_layer(truth, 0.0, 1.0)
    series = {
        name: _column(paths.product(name), rows, columns, reference["time"].values)
        for name in recipe.collocation.products
    }
    common = np.isfinite(np.stack([*series.values(), reference.values])).all(axis=0)
    cube = open_cube(paths.collocation, chunks=None)
    valid = read_cells(cube, "flag", rows, columns) == Flag.VALID
    found = {
        name: read_cells(cube, name, rows, columns)
        for name in ("error_variance", "error_variance_std")
        if name in cube
    }
    lines = []
    regions = _regions({name: truth[name].values for name in ("independent", "correlated")})
    for region, inside in regions.items():
        for i, (name, values) in enumerate(series.items()):
            realised = realised_error_variance(values, reference.values, common)
            estimated = {key: value[:, i] for key, value in found.items()}
            lines.append(
                {"region": region, "product": name} | _compare(estimated, realised, inside, valid)
            )
    return pd.DataFrame(lines)


def realised_error_variance(
    product: NDArray[np.floating], truth: NDArray[np.floating], mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Variance of the product that the truth, scaled to it, does not explain.

    Args:
        product: shape (cells, time), m³ m⁻³.
        truth: same shape.
        mask: true on the days that count.

    Returns:
        Shape (cells,), (m³ m⁻³)²; NaN with fewer than 3 days.
    """
    n = np.where(mask.sum(axis=1) >= 3, mask.sum(axis=1), np.nan)
    x = np.where(mask, product, 0.0).astype(np.float64)
    t = np.where(mask, truth, 0.0).astype(np.float64)
    x = np.where(mask, x - (x.sum(axis=1) / n)[:, None], 0.0)
    t = np.where(mask, t - (t.sum(axis=1) / n)[:, None], 0.0)
    power = (t * t).sum(axis=1)
    slope = (x * t).sum(axis=1) / np.where(power > 0.0, power, np.nan)
    return np.asarray(((x - slope[:, None] * t) ** 2 * mask).sum(axis=1) / (n - 1))


def _column(
    url: str, rows: NDArray[np.int64], columns: NDArray[np.int64], time: NDArray[np.datetime64]
) -> NDArray[np.float32]:
    """0-100 cm means of a product, (cells, time), on the days of the truth."""
    cube = open_cube(url, chunks=None)
    mean = column_mean(read_cells(cube, "soil_moisture", rows, columns), layers_of(cube), axis=2)
    days = cube["time"].values.astype("datetime64[D]").astype(np.int64)
    place = positions(time.astype("datetime64[D]").astype(np.int64), days)
    return np.where(place >= 0, mean[:, place], np.float32(np.nan))


def _regions(masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
    rest = ~np.any(list(masks.values()), axis=0)
    return {REGIONS[name]: mask for name, mask in {**masks, "": rest}.items()}


def _compare(
    estimated: Mapping[str, NDArray[np.floating]],
    realised: NDArray[np.float64],
    inside: NDArray[np.bool_],
    valid: NDArray[np.bool_],
) -> dict[str, float]:
    used = inside & valid & np.isfinite(realised)
    line: dict[str, float] = {"cells": int(inside.sum()), "valid": int((inside & valid).sum())}
    if not used.any():
        return line
    ratio = estimated["error_variance"][used] / realised[used]
    line |= {
        "median_ratio": float(np.median(ratio)),
        "ratio_q25": float(np.quantile(ratio, 0.25)),
        "ratio_q75": float(np.quantile(ratio, 0.75)),
    }
    if "error_variance_std" in estimated:
        known = used & np.isfinite(estimated["error_variance_std"])  # of the cells that were drawn
        if known.any():
            distance = np.abs(estimated["error_variance"][known] - realised[known])
            within = distance <= 2 * estimated["error_variance_std"][known]
            line["within_two"] = float(within.mean())
    return line
