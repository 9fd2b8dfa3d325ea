"""Summaries over cells: medians and quartiles of the long table by any of its columns."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from deepprofile.evaluation.reference.depths import GROUP_NAMES

METRICS = ("bias", "r", "rmse", "ubrmse", "anomaly_r", "spearman", "kge")
SHARES = ("share_below_0", "share_above_06")
MEASURED = (*METRICS, "r_with_smap", *SHARES)
"""Columns of the long table that are averaged over the series of a cell."""
MIN_CELLS = 10
"""Cells below which a summary is marked as resting on few."""
CLASS_CELLS = 20
"""Cells that a class needs to be compared with others, as in Zhu et al. (2026)."""
UNKNOWN = "unknown"
"""Class of the cells that have none."""
CELL = ("row", "column")
_NUMBERS = {
    r"^\d+ common days, (\d+) needed": r"fewer than \1 common days",
    r"\d+ common days with": "too few common days with",
    r"leave the others \d+ of \d+ common days": "leave the others too few common days",
}
"""How the reasons of single series are told of many."""


def summarise(
    table: pd.DataFrame,
    by: Sequence[str] = ("reference", "split", "group"),
    *,
    min_cells: int = MIN_CELLS,
) -> pd.DataFrame:
    """Medians and quartiles over cells for each stratum and estimate.

    A cell with several depths in one group counts once, with the mean of its series.

    Args:
        table: the long table of :func:`~.tables.evaluate`, or several in
            one. Of the measured columns only ``r`` and ``rmse`` must be there.
        by: columns that make a stratum.
        min_cells: cells below which a line is marked in ``few_cells``.

    Returns:
        A line per stratum and estimate: the columns ``by``, ``estimate``, ``n_cells`` with
        metrics, ``n_cells_without`` (no or too few common days), ``n_stations``; of each metric
        the median under its own name and quartiles as ``<metric>_q25`` and ``<metric>_q75``;
        ``share_won``: of the cells in which the estimate and another have an R the share in which
        its is the largest (ties shared); the median ``r_with_smap``; the mean shares of impossible
        values; ``few_cells``.

    Raises:
        ValueError: if the table lacks a column.
    """
    _require(table, [*by, "estimate", *CELL, "r", "rmse"])
    keys = [*by, "estimate"]
    per_cell = cell_means(table, keys)
    rivals = per_cell.groupby([*by, *CELL], dropna=False)["r"]
    won = (per_cell["r"] == rivals.transform("max")).astype(float)
    ties = won.groupby([per_cell[k] for k in (*by, *CELL)], dropna=False).transform("sum")
    contested = per_cell["r"].notna() & (rivals.transform("count") > 1)
    per_cell["share_won"] = (won / ties.where(ties > 0)).where(contested)
    groups = per_cell.groupby(keys, sort=False, dropna=False)
    summary = pd.DataFrame({"n_cells": groups["rmse"].count()})
    summary["n_cells_without"] = groups.size() - summary["n_cells"]
    if "n_stations" in per_cell:
        summary["n_stations"] = groups["n_stations"].sum()
    summary = summary.join(quartiles(groups, [name for name in METRICS if name in per_cell]))
    summary["share_won"] = groups["share_won"].mean()
    if "r_with_smap" in per_cell:
        summary["r_with_smap"] = groups["r_with_smap"].median()
    for share in [share for share in SHARES if share in per_cell]:
        summary[share] = groups[share].mean()
    summary["few_cells"] = summary["n_cells"] < min_cells
    return in_order(summary.reset_index(), [*by, "estimate"], table)


def summarise_classes(
    table: pd.DataFrame,
    by: Sequence[str],
    *,
    keys: Sequence[str] = ("reference", "group"),
    min_cells: int = CLASS_CELLS,
) -> pd.DataFrame:
    """Medians and quartiles for the classes of several columns, one below the other.

    Args:
        table: the long table.
        by: columns of classes, such as ``"land_cover"``; each is summarised for itself.
        keys: columns within whose values classes are formed.
        min_cells: cells that a class needs to be compared with others.

    Returns:
        ``by`` (the column), ``class`` (its value, ``"unknown"`` where a cell has none), then as in
        :func:`summarise`, and ``used``: whether the class is large enough and known. One that is
        not stays in the table and out of comparisons.
    """
    parts = []
    for name in by:
        _require(table, [name])
        named = table.assign(**{"class": class_names(table[name])})
        part = summarise(named, ("class", *keys), min_cells=min_cells)
        part.insert(0, "by", name)
        parts.append(part)
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if parts:
        found["used"] = (found["n_cells"] >= min_cells) & (found["class"] != UNKNOWN)
    return found


def missing_metrics(
    table: pd.DataFrame, by: Sequence[str] = ("reference", "estimate", "group")
) -> pd.DataFrame:
    """How many series lack a metric for which reason.

    Args:
        table: the long table.
        by: columns within which series are counted.

    Returns:
        ``by``, ``reason`` without the numbers of days of each series, and ``n_series``, the most
        frequent first. Series that have all metrics are not there.

    Raises:
        ValueError: if the table lacks a column.
    """
    _require(table, [*by, "reason"])
    found = table[table["reason"].fillna("") != ""]
    kinds = found["reason"].replace(_NUMBERS, regex=True)
    counted = found.assign(reason=kinds).groupby([*by, "reason"], sort=False, dropna=False).size()
    counts = counted.rename("n_series").reset_index()
    return counts.sort_values("n_series", ascending=False, kind="stable", ignore_index=True)


def cell_means(
    table: pd.DataFrame, keys: Sequence[str], values: Sequence[str] = MEASURED
) -> pd.DataFrame:
    """One line for each combination of ``keys`` and cell: the mean over the series of the cell.

    Args:
        table: the long table.
        keys: columns that stay apart, such as ``estimate`` and ``group``.
        values: columns that are averaged, where the table has them.

    Returns:
        ``keys``, ``row``, ``column``, the averaged columns, and the largest ``n_stations``.
    """
    columns = [name for name in values if name in table]
    cells = table.groupby([*keys, *CELL], sort=False, dropna=False)
    result = cells[columns].mean()
    if "n_stations" in table:
        result["n_stations"] = cells["n_stations"].max()
    return result.reset_index()


def quartiles(groups: "DataFrameGroupBy[Any, Any]", columns: Sequence[str]) -> pd.DataFrame:
    """Of each column the median under its own name, and ``<column>_q25`` and ``<column>_q75``."""
    chosen = groups[list(columns)]
    middle, low, high = chosen.median(), chosen.quantile(0.25), chosen.quantile(0.75)
    parts: dict[str, pd.Series] = {}
    for name in columns:
        parts |= {name: middle[name], f"{name}_q25": low[name], f"{name}_q75": high[name]}
    return pd.DataFrame(parts)


def class_names(values: pd.Series) -> pd.Series:
    """Classes as text; ``"unknown"`` for a missing or empty one."""
    known = values.notna() & (values.astype(str) != "")
    return values.astype(str).where(known, UNKNOWN)


def in_order(summary: pd.DataFrame, by: Sequence[str], table: pd.DataFrame) -> pd.DataFrame:
    """Strata by name, depth groups from the surface downwards, estimates as they were given.

    Args:
        summary: what is sorted.
        by: columns to sort by.
        table: the long table, whose first lines say the order of estimates.
    """
    ranks = {"group": list(GROUP_NAMES)}
    ranks |= {
        name: list(table[name].unique()) for name in ("estimate", "subject", "other") if name in by
    }

    def rank(column: pd.Series) -> pd.Series:
        order = ranks.get(str(column.name))
        return column.map({v: i for i, v in enumerate(order)}) if order else column

    return summary.sort_values(list(by), key=rank, ignore_index=True)


def _require(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in dict.fromkeys(columns) if name not in table]
    if missing:
        raise ValueError(
            f"the table lacks the columns {missing}: it has {list(table.columns)}. Classes such as "
            "land_cover come from the reference; leave them out where it has none"
        )
