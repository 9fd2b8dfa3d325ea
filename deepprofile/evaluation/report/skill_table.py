"""The table of skill on core and on extra cells, by depth: medians with quartiles."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from deepprofile.evaluation.figures.style import label
from deepprofile.evaluation.report.blocks import Cell, Table
from deepprofile.evaluation.report.findings import RESULT, best, ranked
from deepprofile.evaluation.skill.summaries import summarise

CORE, EXTRA = "core", "extra"
ON_CORE = ("bias", "r", "rmse", "ubrmse")
LIMITED = ("r", "ubrmse")
"""Metrics whose confidence limits are told."""
_MISSING = -1e300
_HOW = (
    "Medians over cells, with the lower and upper quartile in brackets. Core cells have at least "
    "as many working stations as the setting core_stations asks (3 by default), extra cells fewer. "
    "Only estimates with as many core (or extra) cells at a depth as any other are ranked; bias is "
    "not."
)
_LIMITS = (
    "Limits: share of the series on core and extra cells that have confidence limits, and the "
    "median of their widths."
)


def has_classes(rows: pd.DataFrame) -> bool:
    """Whether there are core or extra cells."""
    return "cell_class" in rows and bool(rows["cell_class"].isin([CORE, EXTRA]).any())


def skill_table(rows: pd.DataFrame, groups: Sequence[str], caption: str) -> Table:
    """Bias, R, RMSE and ubRMSE on core cells and R on extra cells, for each depth and estimate.

    Args:
        rows: lines of the long table of one reference.
        groups: depth groups in their order.
        caption: what is compared.
    """
    rows = rows[rows["cell_class"].isin([CORE, EXTRA])]
    sides = {
        side: summarise(rows[rows["cell_class"] == side], by=("group",)).set_index(
            ["group", "estimate"]
        )
        for side in (CORE, EXTRA)
    }
    limits = _limit_widths(rows)
    estimates = list(dict.fromkeys(rows["estimate"]))
    lines: list[list[Cell]] = []
    for position, group in enumerate(groups):
        keys = [(group, estimate) for estimate in estimates]
        known = [key for key in keys if any(key in side.index for side in sides.values())]
        columns = [_counts(sides[CORE], known)]
        columns += [_medians(sides[CORE], known, metric) for metric in ON_CORE]
        columns += [_counts(sides[EXTRA], known), _medians(sides[EXTRA], known, "r")]
        columns += [_widths(limits, known, metric) for metric in LIMITED if not limits.empty]
        for i, (_, estimate) in enumerate(known):
            first = Cell(group, f"{position:03d}", starts=i == 0)
            lines.append([first, Cell(label(estimate), label(estimate)), *(c[i] for c in columns)])
    heads = ["Depth", "Estimate", "Core cells"]
    heads += [RESULT[metric].title for metric in ON_CORE]
    heads += ["Extra cells", "R on extra cells"]
    heads += [f"Limits of {RESULT[metric].title}" for metric in LIMITED if not limits.empty]
    text = f"{caption} {_HOW}" + ("" if limits.empty else f" {_LIMITS}")
    return Table(text, heads, lines)


Keys = list[tuple[str, str]]


def _counts(side: pd.DataFrame, keys: Keys) -> list[Cell]:
    counts = side["n_cells"].reindex(keys).fillna(0).astype(int)
    return [Cell(str(n), float(n)) for n in counts]


def _medians(side: pd.DataFrame, keys: Keys, metric: str) -> list[Cell]:
    column = RESULT[metric]
    part = side.reindex(keys)
    middle, low, high = (
        part[name].to_numpy(dtype=np.float64) for name in (metric, f"{metric}_q25", f"{metric}_q75")
    )
    taken = ranked(part["n_cells"].fillna(0)).to_numpy()
    marks = best(np.where(taken, middle, np.nan), column)
    cells = []
    for value, lower, upper, mark in zip(middle, low, high, marks, strict=True):
        text = f"{column.shown(value)} [{column.shown(lower)}, {column.shown(upper)}]"
        known = bool(np.isfinite(value))
        cells.append(Cell(text if known else "–", value if known else _MISSING, bool(mark)))
    return cells


def _limit_widths(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of series with limits and median width, by group and estimate; empty without limits."""
    names = [f"{metric}_{end}" for metric in LIMITED for end in ("low", "high")]
    if not set(names) <= set(rows) or rows[names].isna().all(axis=None):
        return pd.DataFrame()
    found = {}
    for metric in LIMITED:
        width = rows[f"{metric}_high"] - rows[f"{metric}_low"]
        groups = width.groupby([rows["group"], rows["estimate"]], sort=False)
        found[f"{metric}_share"] = groups.count() / groups.size()
        found[f"{metric}_width"] = groups.median()
    return pd.DataFrame(found)


def _widths(limits: pd.DataFrame, keys: Keys, metric: str) -> list[Cell]:
    part = limits.reindex(keys)
    digits = RESULT[metric].digits
    return [
        Cell(f"{100 * share:.0f} %: {width:.{digits}f}", float(width))
        if np.isfinite(width)
        else Cell("none", _MISSING)
        for share, width in zip(part[f"{metric}_share"], part[f"{metric}_width"], strict=True)
    ]
