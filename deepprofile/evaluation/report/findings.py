"""What a table of results says, in words computed from it, and which values are best."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.figures.style import label
from deepprofile.evaluation.figures.violins import depth_groups
from deepprofile.evaluation.figures.weights import VALID, flag_reasons, shown_cells

DOMINANT = 0.9
"""A cell with a weight above this rests on one product."""
Better = Literal["high", "low"] | None


@dataclass(frozen=True)
class Column:
    """A column of the table of results.

    Attributes:
        name: column of the summary.
        title: heading, with the unit.
        digits: digits shown after the point.
        better: which value is best: the highest, the lowest, or none.
        factor: what the value is multiplied with before it is shown.
    """

    name: str
    title: str
    digits: int = 3
    better: Better = None
    factor: float = 1.0

    def shown(self, value: float) -> str:
        """The value as it stands in the table."""
        rounded = round(value * self.factor, self.digits) + 0.0  # never "-0.000"
        return "–" if pd.isna(value) else f"{rounded:.{self.digits}f}"


COLUMNS = (
    Column("n_cells", "Cells", 0),
    Column("r", "R", 3, "high"),
    Column("anomaly_r", "Anomaly R", 3, "high"),
    Column("ubrmse", "ubRMSE (m³\N{NO-BREAK SPACE}m⁻³)", 4, "low"),
    Column("bias", "Bias (m³\N{NO-BREAK SPACE}m⁻³)", 4),
    Column("rmse", "RMSE (m³\N{NO-BREAK SPACE}m⁻³)", 4, "low"),
    Column("share_won", "Cells won by R (%)", 0, "high", 100.0),
    Column("r_with_smap", "R with SMAP L4", 3),
)
RESULT = {column.name: column for column in COLUMNS}


def columns_of(summary: pd.DataFrame, names: Sequence[str] = tuple(RESULT)) -> list[Column]:
    """Those of the named columns that a summary has, in the order of the table."""
    return [RESULT[name] for name in names if name in summary and summary[name].notna().any()]


def best(values: NDArray[np.float64], column: Column) -> NDArray[np.bool_]:
    """Whether each value is the best as far as its shown digits tell; none of a single value."""
    # Python's rounding, as in the text: NumPy's makes another of ties such as 0.0005.
    shown = np.array([round(v * column.factor, column.digits) for v in values.tolist()])
    if column.better is None or np.isfinite(shown).sum() < 2:
        return np.zeros(shown.shape, dtype=np.bool_)
    distance = {"high": -shown, "low": shown}[column.better]
    return np.asarray(distance == np.nanmin(distance))


def ranked(n_cells: pd.Series) -> pd.Series:
    """Which estimates of a depth group are ranked: those with as many cells as any other.

    Medians of fewer cells rest on other cells, which may be easier or harder ones.
    """
    return n_cells.eq(n_cells.max()) & n_cells.gt(0)


@dataclass(frozen=True)
class Value:
    """A value of the table of results as it is shown."""

    text: str
    value: float
    best: bool


def group_lines(
    summary: pd.DataFrame, group: str, columns: Sequence[Column]
) -> Iterator[tuple[str, list[Value]]]:
    """Each estimate of a depth group with its values, the best of each column marked.

    Only estimates that are `ranked` get a mark.
    """
    part = summary[summary["group"] == group]
    taken = ranked(part["n_cells"]).to_numpy()
    values = {column: part[column.name].to_numpy(dtype=np.float64) for column in columns}
    marks = {
        column: best(np.where(taken, found, np.nan), column) for column, found in values.items()
    }
    for i, estimate in enumerate(part["estimate"]):
        line = [(column, float(values[column][i])) for column in columns]
        yield estimate, [Value(c.shown(v), v, bool(marks[c][i])) for c, v in line]


def compare_depths(summary: pd.DataFrame, subject: str) -> list[str]:
    """Sentences naming the depths at which another estimate is better than the subject.

    Medians of R and of ubRMSE are compared as far as their shown digits tell, among the estimates
    that are `ranked`; the others are named.

    Args:
        summary: one row for each group and estimate of one reference.
        subject: name of the estimate that is judged.
    """
    behind = {
        group: list(_better_than(_ranked_rows(summary, group), subject))
        for group in depths_judged(summary, subject)
    }
    sentences = [f"{group}: {'; '.join(texts)}." for group, texts in behind.items() if texts]
    leads = [group for group, texts in behind.items() if not texts]
    if leads:
        sentences.append(
            f"{label(subject)} is not surpassed by R or ubRMSE at: {', '.join(leads)}."
        )
    return sentences + not_ranked(summary, subject)


def not_ranked(summary: pd.DataFrame, subject: str) -> list[str]:
    """Sentences naming the estimates that have metrics in fewer cells, and where; may be none.

    Args:
        summary: one row for each group and estimate of one reference.
        subject: name of the estimate that is judged.
    """
    fewer: dict[str, list[str]] = {}
    for group in depth_groups(summary):
        counts = _rows(summary, group)["n_cells"]
        for name in counts.index[counts < counts.max()]:
            if name == subject or counts[name]:
                fewer.setdefault(str(name), []).append(group)
    own = fewer.pop(subject, [])
    sentences = []
    if own:
        sentences.append(
            f"{label(subject)} has metrics in fewer cells than others at {', '.join(own)}: it is "
            "not ranked there; the paired comparison takes common cells."
        )
    places: dict[str, list[str]] = {}
    for name, groups in fewer.items():
        places.setdefault(", ".join(groups), []).append(label(name))
    parts = [f"{_listed(names)} at {groups}" for groups, names in places.items()]
    if parts:
        sentences.append(
            f"Metrics in fewer cells than others: {'; '.join(parts)}. Their medians rest on other "
            "cells and are not ranked; the paired comparison takes common cells."
        )
    return sentences


def depths_behind(summary: pd.DataFrame, subject: str) -> list[str]:
    """Depth groups at which another estimate is better than the subject by R or ubRMSE."""
    groups = depths_judged(summary, subject)
    return [group for group in groups if any(_better_than(_ranked_rows(summary, group), subject))]


def depths_judged(summary: pd.DataFrame, subject: str) -> list[str]:
    """Depth groups at which the subject is `ranked`, and another estimate beside it."""
    return [
        group
        for group in depth_groups(summary)
        if subject in (names := _ranked_rows(summary, group).index) and len(names) > 1
    ]


def few_cells(summary: pd.DataFrame, names: Sequence[str], min_cells: int) -> str:
    """Sentence naming the lines that rest on few cells, with a space before it; empty for none.

    Args:
        summary: table with ``few_cells``.
        names: what each line is called; names may repeat.
        min_cells: cells below which a line was marked.
    """
    few = [name for name, is_so in zip(names, summary["few_cells"], strict=True) if is_so]
    listed = ", ".join(dict.fromkeys(few))
    return f" Fewer than {min_cells} cells, so read with care: {listed}." if few else ""


def _ranked_rows(summary: pd.DataFrame, group: str) -> pd.DataFrame:
    rows = _rows(summary, group)
    return rows[ranked(rows["n_cells"])]


def _rows(summary: pd.DataFrame, group: str) -> pd.DataFrame:
    return summary[summary["group"] == group].set_index("estimate")


def _better_than(rows: pd.DataFrame, subject: str) -> Iterator[str]:
    """For each metric, who is better than the subject and by which values."""
    for column, side in ((RESULT["r"], "above"), (RESULT["ubrmse"], "below")):
        values = rows[column.name].round(column.digits)
        own = values[subject]
        ahead = values[values > own] if column.better == "high" else values[values < own]
        ahead = ahead.sort_values(ascending=column.better == "low")
        if len(ahead):
            names = _listed([f"{label(str(k))} ({column.shown(v)})" for k, v in ahead.items()])
            name = column.title.split(" ")[0]
            yield f"{name} of {names} is {side} that of {label(subject)} ({column.shown(own)})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def validation_gap(training: pd.DataFrame, validation: pd.DataFrame, estimate: str) -> pd.DataFrame:
    """Median R and ubRMSE of one estimate on training and on validation cells, by depth group.

    Args:
        training: summary over training cells of one reference.
        validation: the same over cells that training has not seen.
        estimate: name of the estimate.

    Returns:
        Columns ``group``, ``cells_training``, ``cells_validation`` and for each metric
        ``<metric>_training``, ``<metric>_validation`` and ``<metric>_difference`` (validation minus
        training).
    """
    rows = []
    for group in depth_groups(validation):
        sides = [_rows(part, group) for part in (training, validation)]
        if not all(estimate in side.index for side in sides):
            continue
        seen, new = (side.loc[estimate] for side in sides)
        row = {
            "group": group,
            "cells_training": seen["n_cells"],
            "cells_validation": new["n_cells"],
        }
        for metric in ("r", "ubrmse"):
            row[f"{metric}_training"], row[f"{metric}_validation"] = seen[metric], new[metric]
            row[f"{metric}_difference"] = new[metric] - seen[metric]
        rows.append(row)
    return pd.DataFrame(rows)


def weight_summary(collocation: xr.Dataset, land: xr.DataArray | None) -> pd.DataFrame:
    """Median, quartiles and share above 0.9 of each product's weight over the valid cells."""
    valid = shown_cells(collocation, land) & (collocation["flag"] == VALID)
    weight = collocation["weight"].where(valid)
    rows = []
    for product in weight["product"].values:
        values = weight.sel(product=product).values
        values = values[np.isfinite(values)]
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)) if values.size else [np.nan] * 3
        above = 100 * float(np.mean(values > DOMINANT)) if values.size else np.nan
        rows.append((label(str(product)), middle, low, high, above))
    return pd.DataFrame(rows, columns=["product", "median", "q25", "q75", "share_above"])


def invalid_reasons(collocation: xr.Dataset, land: xr.DataArray | None) -> pd.DataFrame:
    """Cells and their share for each meaning of the flag that occurs, valid ones included."""
    shown = shown_cells(collocation, land)
    flags = collocation["flag"].transpose(*shown.dims).values[shown.values]
    rows = [
        (reason, int((flags == value).sum()), 100 * float((flags == value).mean()))
        for value, reason in flag_reasons(collocation["flag"]).items()
        if (flags == value).any()
    ]
    return pd.DataFrame(rows, columns=["state", "cells", "share"])
