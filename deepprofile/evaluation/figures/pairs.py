"""Is the subject better than another estimate: shares of cells, and the difference of metrics."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from deepprofile.evaluation.figures.style import (
    MUTED,
    SMALL,
    TINY,
    WIDTH,
    label,
    legend_above,
    new_figure,
    tidy,
)
from deepprofile.evaluation.figures.violins import depth_groups

VERDICTS = {"better": "#0072B2", "unclear": "#D9D9D9", "worse": "#D55E00"}
COMPARED = {"r": "R", "ubrmse": "ubRMSE"}
UNITS = {"r": "dimensionless", "ubrmse": "m³ m⁻³"}
MAX_OTHERS = 3
"""Estimates that fit into one figure."""


def paired_shares(summary: pd.DataFrame, others: Sequence[str], subject: str) -> Figure:
    """For each other estimate, metric and depth: shares of cells with a verdict, and differences.

    The point is the median difference over cells (subject minus other), the line reaches from the
    lower to the upper quartile.

    Args:
        summary: from `skill.pairs.summarise_pairs`, of one reference and subject.
        others: the other estimates, one row of panels each.
        subject: name of the estimate that is judged.

    Raises:
        ValueError: if there is none of them in the table.
    """
    others = [name for name in others if (summary["other"] == name).any()]
    if not others:
        raise ValueError("paired_shares needs at least one other estimate, found none")
    groups = depth_groups(summary[summary["other"].isin(others)])
    figure = new_figure(WIDTH, 0.95 + (0.15 * len(groups) + 0.42) * len(others))
    panels = figure.subplots(
        len(others), 4, squeeze=False, sharex="col", gridspec_kw={"width_ratios": (1.25, 1) * 2}
    )
    for row, other in zip(panels, others, strict=True):
        lines = summary[summary["other"] == other].set_index("group").reindex(groups)
        for (shares, difference), metric in zip((row[:2], row[2:]), COMPARED, strict=True):
            _shares(shares, lines, metric)
            _difference(difference, lines, metric)
        row[0].set_title(f"against {label(other)}", loc="left", fontsize=SMALL + 0.5,
                         fontweight="bold")  # fmt: skip
        _name_groups(row[0], groups)
        for axes in row[1:]:
            axes.set_yticks(range(len(groups)), [])
    for (shares, difference), metric in zip(
        (panels[-1, :2], panels[-1, 2:]), COMPARED, strict=True
    ):
        shares.set_xlabel(f"Cells judged by {COMPARED[metric]} (%)", fontsize=SMALL)
        text = f"Difference of {COMPARED[metric]}\n({UNITS[metric]})"
        difference.set_xlabel(text, fontsize=SMALL)
    patches = [Patch(color=colour) for colour in VERDICTS.values()]
    legend_above(figure, patches, [f"{label(subject)} {word}" if word != "unclear" else word
                                   for word in VERDICTS])  # fmt: skip
    return figure


def _shares(axes: Axes, lines: pd.DataFrame, metric: str) -> None:
    better = lines[f"{metric}_better"].to_numpy(dtype=np.float64)
    worse = lines[f"{metric}_worse"].to_numpy(dtype=np.float64)
    judged = lines[f"{metric}_cells_judged"].fillna(0).to_numpy(dtype=np.int64)
    left = np.zeros(len(lines))
    parts = {"better": better, "unclear": 1 - better - worse, "worse": worse}
    for verdict, share in parts.items():
        width = 100 * np.nan_to_num(share)
        axes.barh(range(len(lines)), width, 0.78, left=left, color=VERDICTS[verdict])
        left += width
    for place, n in enumerate(judged):
        axes.text(101.5, place, f"{n}" if n else "none", va="center", fontsize=TINY - 0.5,
                  color=MUTED)  # fmt: skip
    axes.set(xlim=(0, 100), xticks=(0, 50, 100))
    _frame(axes, len(lines))


def _difference(axes: Axes, lines: pd.DataFrame, metric: str) -> None:
    name = f"{metric}_difference"
    middle, low, high = (lines[c].to_numpy(dtype=np.float64) for c in
                         (name, f"{name}_q25", f"{name}_q75"))  # fmt: skip
    places = np.arange(len(lines))
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.hlines(places, low, high, color="#444444", linewidth=1.2)
    axes.plot(middle, places, "o", color="black", markersize=3)
    axes.locator_params(axis="x", nbins=4)
    _frame(axes, len(lines))


def _frame(axes: Axes, n: int) -> None:
    axes.set_ylim(n - 0.4, -0.6)
    tidy(axes, grid="x")
    axes.tick_params(labelsize=TINY, labelbottom=True)


def _name_groups(axes: Axes, groups: Sequence[str]) -> None:
    axes.set_yticks(range(len(groups)), groups, fontsize=TINY)
