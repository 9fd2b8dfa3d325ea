"""Tables: every estimate against a reference on the same days, and summaries over cells."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation import metrics
from deepprofile.evaluation.depths import GROUP_NAMES
from deepprofile.evaluation.estimates import Estimate, cell_keys, positions

MIN_DAYS = 30
"""Common days that a series must have for its metrics to count."""
MIN_CELLS = 10
"""Cells below which a summary is marked as resting on few."""
WETTEST = 0.6
"""Soil moisture in m³ m⁻³ above which a value is hardly possible."""
METRICS = ("bias", "r", "rmse", "ubrmse", "anomaly_r")
SHARES = ("share_below_0", "share_above_06")
COLUMNS = (
    *("reference", "estimate", "group", "top", "bottom", "row", "column", "cell_class", "split"),
    *("n_stations", "n", *METRICS, "r_with_smap", *SHARES),
)
"""Columns of the long table."""
_SERIES = ("group", "top", "bottom", "row", "column", "cell_class", "split")
Array = NDArray[np.float64]


def evaluate(
    estimates: Sequence[Estimate],
    reference: xr.Dataset,
    *,
    name: str,
    smap: str = "smap_l4",
    min_days: int = MIN_DAYS,
    batch: int = 128,
) -> pd.DataFrame:
    """Metrics of every estimate for every series of a reference.

    A series is compared on the days on which the reference and *all* estimates that cover its
    depth have a value, so that no estimate gains from easier days. An estimate that does not
    cover a depth has no line for it.

    Args:
        estimates: estimates with distinct names.
        reference: from :func:`~deepprofile.evaluation.ground_truth.ground_truth` or
            :func:`~deepprofile.evaluation.ground_truth.truth_reference`.
        name: name of the reference in the table, such as ``"stations"``.
        smap: name of the estimate with which the others are correlated in ``r_with_smap``.
        min_days: common days below which the metrics of a series are NaN (``n`` stays).
        batch: series at a time; memory grows with batch x estimates x days.

    Returns:
        The long table, a line per estimate and series, with :data:`COLUMNS`: ``n`` common days,
        ``anomaly_r`` the correlation of departures from a 35-day moving mean, ``n_stations`` the
        largest number of stations on a day, and the shares of the estimate's values below 0 and
        above 0.6 m³ m⁻³ on the common days. A cell that an estimate lacks has ``n`` 0.

    Raises:
        ValueError: if names repeat or there is no day that all have.
    """
    names = [estimate.name for estimate in estimates]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"estimates are named {names}: expected at least one, distinct names")
    days = _common_days(estimates, reference)
    frames = [
        _evaluate_batch(used, reference, series, days, smap, min_days)
        for used, series in _batches(estimates, reference, batch)
    ]
    if not frames:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat(frames, ignore_index=True)
    table.insert(0, "reference", name)
    return table[list(COLUMNS)]


def summarise(
    table: pd.DataFrame,
    by: Sequence[str] = ("reference", "split", "group"),
    *,
    min_cells: int = MIN_CELLS,
) -> pd.DataFrame:
    """Medians and quartiles over cells for each stratum and estimate.

    A cell with several depths in one group counts once, with the mean of its series.

    Args:
        table: the long table of :func:`evaluate`, or several in one. Of the measured columns
            only ``r`` and ``rmse`` must be there.
        by: columns that make a stratum.
        min_cells: cells below which a line is marked in ``few_cells``.

    Returns:
        A line per stratum and estimate: the columns ``by``, ``estimate``, ``n_cells`` with
        metrics, ``n_cells_without`` (no or too few common days), ``n_stations``; of each metric
        the median under its own name and quartiles as ``<metric>_q25`` and ``<metric>_q75``;
        ``share_won``: the share of the cells with an R in which the estimate has the largest (ties
        shared); the median ``r_with_smap``; the mean shares of impossible values; ``few_cells``.
    """
    keys = [*by, "estimate"]
    per_cell = _per_cell(table, keys)
    best = per_cell.groupby([*by, "row", "column"], dropna=False)["r"].transform("max")
    won = (per_cell["r"] == best).astype(float)
    ties = won.groupby([per_cell[k] for k in (*by, "row", "column")], dropna=False).transform("sum")
    per_cell["share_won"] = (won / ties).where(best.notna())
    groups = per_cell.groupby(keys, sort=False, dropna=False)
    summary = pd.DataFrame({"n_cells": groups["rmse"].count()})
    summary["n_cells_without"] = groups.size() - summary["n_cells"]
    if "n_stations" in per_cell:
        summary["n_stations"] = groups["n_stations"].sum()
    for metric in [metric for metric in METRICS if metric in per_cell]:
        summary[metric] = groups[metric].median()
        summary[f"{metric}_q25"] = groups[metric].quantile(0.25)
        summary[f"{metric}_q75"] = groups[metric].quantile(0.75)
    summary["share_won"] = groups["share_won"].mean()
    if "r_with_smap" in per_cell:
        summary["r_with_smap"] = groups["r_with_smap"].median()
    for share in [share for share in SHARES if share in per_cell]:
        summary[share] = groups[share].mean()
    summary["few_cells"] = summary["n_cells"] < min_cells
    return _in_order(summary.reset_index(), by, list(table["estimate"].unique()))


def _common_days(estimates: Sequence[Estimate], reference: xr.Dataset) -> NDArray[np.int64]:
    """Every day from the latest start to the earliest end, as days since 1970-01-01."""
    axes = {estimate.name: estimate.days for estimate in estimates}
    axes["the reference"] = _reference_days(reference)
    spans = {name: (axis.min(), axis.max()) for name, axis in axes.items() if axis.size}
    first = max((first for first, _ in spans.values()), default=0)
    last = min((last for _, last in spans.values()), default=-1)
    if first > last or len(spans) < len(axes):
        text = "; ".join(f"{name}: {_period(axis)}" for name, axis in axes.items())
        raise ValueError(f"estimates and reference have no day in common: {text}")
    return np.arange(first, last + 1)


def _period(days: NDArray[np.int64]) -> str:
    if days.size == 0:
        return "no day at all"
    return " to ".join(str(np.datetime64(int(day), "D")) for day in (days.min(), days.max()))


def _reference_days(reference: xr.Dataset) -> NDArray[np.int64]:
    return reference["time"].to_numpy().astype("datetime64[D]").astype(np.int64)


def _batches(
    estimates: Sequence[Estimate], reference: xr.Dataset, batch: int
) -> Iterator[tuple[list[Estimate], NDArray[np.int64]]]:
    """Series of equal bounds, ``batch`` at a time, with the estimates that cover them."""
    bounds = np.stack([reference["top"].to_numpy(), reference["bottom"].to_numpy()], axis=1)
    unique, code = np.unique(bounds, axis=0, return_inverse=True)
    for i, (top, bottom) in enumerate(unique.tolist()):
        used = [estimate for estimate in estimates if estimate.covers(top, bottom)]
        series = np.flatnonzero(code == i)
        for start in range(0, series.size if used else 0, batch):
            yield used, series[start : start + batch]


def _evaluate_batch(
    estimates: Sequence[Estimate],
    reference: xr.Dataset,
    series: NDArray[np.int64],
    days: NDArray[np.int64],
    smap: str,
    min_days: int,
) -> pd.DataFrame:
    part = reference.isel(series=series)
    truth = _on_days(part["soil_moisture"].to_numpy(), _reference_days(reference), days)
    keys = cell_keys(part["row"], part["column"])
    bounds = float(part["top"][0]), float(part["bottom"][0])
    values = np.stack([_on_cells(e, keys, days, bounds) for e in estimates])
    mask = np.isfinite(truth) & np.isfinite(values).all(axis=0)
    names = [estimate.name for estimate in estimates]
    other = values[names.index(smap)] if smap in names else None
    described = {name: np.tile(part[name].to_numpy(), len(names)) for name in _SERIES}
    stations = part["n_stations"].max("time").to_numpy()
    return pd.DataFrame(
        {
            "estimate": np.repeat(names, len(series)),
            **described,
            "n_stations": np.tile(stations, len(names)).astype(np.int64),
            **{k: v.ravel() for k, v in _measure(values, truth, mask, other, min_days).items()},
        }
    )


def _measure(
    values: Array, truth: Array, mask: NDArray[np.bool_], other: Array | None, min_days: int
) -> dict[str, NDArray[np.generic]]:
    """Metrics of shape (estimates, series)."""
    result = metrics.compare(values, truth, mask, min_days)
    departures, exist = metrics.anomalies(values, mask)
    true_departures, _ = metrics.anomalies(truth, mask)
    nowhere = np.full(values.shape[:2], np.nan)
    n = np.where(result.n >= max(min_days, 1), result.n, np.nan)
    return {
        "n": result.n,
        "bias": result.bias,
        "r": result.r,
        "rmse": result.rmse,
        "ubrmse": result.ubrmse,
        "anomaly_r": metrics.compare(departures, true_departures, exist, min_days).r,
        "r_with_smap": nowhere
        if other is None
        else metrics.compare(values, other, mask, min_days).r,
        "share_below_0": (mask & (values < 0)).sum(axis=-1) / n,
        "share_above_06": (mask & (values > WETTEST)).sum(axis=-1) / n,
    }


def _on_days(
    values: NDArray[np.floating], found: NDArray[np.int64], days: NDArray[np.int64]
) -> Array:
    """Series of ``found`` days laid on ``days``, NaN where a day is missing."""
    at = positions(days, found)
    return np.where(at >= 0, values[..., at].astype(np.float64), np.nan)


def _on_cells(
    estimate: Estimate,
    keys: NDArray[np.int64],
    days: NDArray[np.int64],
    bounds: tuple[float, float],
) -> Array:
    """An estimate's series for the wanted cells and days, NaN where it lacks them."""
    at = positions(keys, estimate.keys)
    cells, inverse = np.unique(at[at >= 0], return_inverse=True)
    values = np.full((keys.size, days.size), np.nan)
    if cells.size:
        values[at >= 0] = _on_days(estimate.values(cells, *bounds), estimate.days, days)[inverse]
    return values


def _per_cell(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean over the series of a cell in one stratum."""
    columns = [name for name in (*METRICS, "r_with_smap", *SHARES) if name in table]
    cells = table.groupby([*keys, "row", "column"], sort=False, dropna=False)
    result = cells[columns].mean()
    if "n_stations" in table:
        result["n_stations"] = cells["n_stations"].max()
    return result.reset_index()


def _in_order(summary: pd.DataFrame, by: Sequence[str], estimates: Sequence[str]) -> pd.DataFrame:
    """Strata by name, depth groups from the surface downwards, estimates as they were given."""
    ranks = {"group": list(GROUP_NAMES), "estimate": list(estimates)}

    def rank(column: pd.Series) -> pd.Series:
        order = ranks.get(str(column.name))
        return column.map({v: i for i, v in enumerate(order)}) if order else column

    return summary.sort_values([*by, "estimate"], key=rank, ignore_index=True)
