"""Density scatter of estimates against references: in how many days which pair of values is met."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deepprofile.evaluation.assessment import DENSITY_EDGES, Counts
from deepprofile.evaluation.figures.style import (
    MAX_HEIGHT,
    MUTED,
    SMALL,
    TINY,
    WIDTH,
    grouped,
    label,
    new_figure,
)

MAX_COLUMNS = 7
"""Estimates that fit side by side."""
_END = float(DENSITY_EDGES[-1])
_TICKS = (0.0, 0.2, 0.4, 0.6)
_ACROSS, _DOWN = 1.18 * _END, 1.26 * _END
"""From the edge of one panel to that of the next, in units of soil moisture."""


def density_scatter(
    counts: Mapping[tuple[str, str], Counts], n_cells: Mapping[tuple[str, str], int]
) -> Figure:
    """A panel per depth group (down) and estimate (across) on one logarithmic colour scale.

    All panels lie in one set of axes, each moved by its place.

    Args:
        counts: by estimate and depth group the days in classes of the reference (first axis) and
            of the estimate, between ``DENSITY_EDGES``; drawn in the order in which they come.
        n_cells: number of cells behind them.

    Raises:
        ValueError: if there is nothing to draw, or more estimates than fit side by side.
    """
    estimates = list(dict.fromkeys(estimate for estimate, _ in counts))
    groups = list(dict.fromkeys(group for _, group in counts))
    most = max((int(found.max(initial=0)) for found in counts.values()), default=0)
    if not most or len(estimates) > MAX_COLUMNS:
        raise ValueError(
            f"a density scatter of {len(estimates)} estimates with at most {most} days in a class: "
            f"expected 1 to {MAX_COLUMNS} estimates and at least one day"
        )
    side = min((WIDTH - 1.4) / len(estimates), (MAX_HEIGHT - 1.0) / 1.06 / len(groups), 1.9)
    figure = new_figure(side * len(estimates) + 1.4, 1.06 * side * len(groups) + 1.0)
    axes = figure.subplots()
    scale = LogNorm(1, max(most, 10))
    lefts = [place * _ACROSS for place in range(len(estimates))]
    bottoms = [(len(groups) - 1 - place) * _DOWN for place in range(len(groups))]
    for group, bottom in zip(groups, bottoms, strict=True):
        for estimate, left in zip(estimates, lefts, strict=True):
            key = (estimate, group)
            _panel(axes, counts.get(key), n_cells.get(key, 0), scale, left, bottom)
    _frame(axes, estimates, groups, lefts, bottoms)
    shades = ScalarMappable(scale, "viridis_r")
    bar = figure.colorbar(shades, ax=axes, shrink=min(0.9, 2.4 / len(groups)), aspect=22, pad=0.01)
    bar.set_label("Days in a class of 0.01 m³ m⁻³ × 0.01 m³ m⁻³", fontsize=SMALL)
    bar.ax.tick_params(labelsize=TINY)
    return figure


def _panel(
    axes: Axes, counts: Counts | None, n_cells: int, scale: LogNorm, left: float, bottom: float
) -> None:
    axes.add_patch(
        Rectangle((left, bottom), _END, _END, fill=False, edgecolor="#999999", linewidth=0.6)
    )
    if counts is None or not counts.any():
        middle = (left + _END / 2, bottom + _END / 2)
        axes.text(*middle, "no days", ha="center", fontsize=TINY, color=MUTED)
        return
    axes.imshow(
        np.ma.masked_equal(counts.T, 0),
        origin="lower",
        extent=(left, left + _END, bottom, bottom + _END),
        norm=scale,
        cmap="viridis_r",
        interpolation="none",
    )
    ends = (0.0, _END)
    axes.plot(np.add(ends, left), np.add(ends, bottom), color="black", linewidth=0.7, dashes=(4, 3))
    text = f"{grouped(int(counts.sum()))} d, {grouped(n_cells)} cell{'' if n_cells == 1 else 's'}"
    axes.text(left, bottom + 1.03 * _END, text, fontsize=TINY - 0.6)


def _frame(
    axes: Axes,
    estimates: Sequence[str],
    groups: Sequence[str],
    lefts: Sequence[float],
    bottoms: Sequence[float],
) -> None:
    """Names of columns and rows, and ticks of each panel at the outer edges."""
    for estimate, left in zip(estimates, lefts, strict=True):
        axes.text(left + _END / 2, bottoms[0] + 1.19 * _END, fill(label(estimate), 13), ha="center",
                  fontsize=SMALL, fontweight="bold")  # fmt: skip
    across, down = lefts[-1] + _END, bottoms[0] + _END
    for group, bottom in zip(groups, bottoms, strict=True):
        place = (across + 0.09 * _END, bottom + _END / 2)
        axes.text(*place, group, va="center", ha="center", rotation=270, fontsize=SMALL,
                  fontweight="bold")  # fmt: skip
    names = [f"{tick:g}" for tick in _TICKS]
    axes.set_xticks(np.add.outer(lefts, _TICKS).ravel(), names * len(lefts))
    axes.set_yticks(np.add.outer(bottoms, _TICKS).ravel(), names * len(bottoms))
    slack = 0.01 * _END
    axes.set(xlim=(-slack, across + slack), ylim=(-slack, down + 0.5 * _END), aspect="equal")
    axes.tick_params(labelsize=TINY, color="#999999", length=2)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Reference soil moisture (m³ m⁻³)", fontsize=SMALL + 0.5)
    axes.set_ylabel("Estimated soil moisture (m³ m⁻³)", fontsize=SMALL + 0.5)
