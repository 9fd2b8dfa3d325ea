"""Spread of metrics over cells, by depth group."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from deepprofile.evaluation.figures.style import (
    METRIC_LABELS,
    SMALL,
    WIDTH,
    colours,
    label,
    legend_above,
    new_figure,
    tidy,
)
from deepprofile.evaluation.reference.depths import GROUP_NAMES

MIN_VIOLIN = 10
"""Fewer values than this are drawn as points: a density of them would say too much."""
MIN_TRIMMED = 100
"""From so many values on the lowest and highest 1 % are left out of a violin's body."""


def depth_groups(frame: pd.DataFrame) -> list[str]:
    """Groups of a table from the surface down, columns and groups of other names last."""
    found = [str(name) for name in frame["group"].unique()]
    return sorted(found, key=lambda name: (*GROUP_NAMES, *found).index(name))


def violins(
    frame: pd.DataFrame, metrics: Sequence[str] = ("r", "ubrmse"), subject: str = ""
) -> Figure:
    """Distribution over cells of each metric, by depth group, the estimates side by side.

    Fewer than ten cells are drawn as points, and of a hundred or more the lowest and highest
    1 % are left out. The short line is the median of all cells.

    Args:
        frame: long table of one reference, with columns ``estimate``, ``group``, ``row``,
            ``column`` and the metrics; several series of a cell and group are averaged.
        metrics: columns to draw, one panel each.
        subject: name of the estimate that is judged, drawn in black.

    Raises:
        ValueError: if the frame is empty.
    """
    if frame.empty:
        raise ValueError("violins need at least one row of metrics, found an empty table")
    groups, palette = depth_groups(frame), colours(frame["estimate"], subject)
    keys = ["estimate", "group", "row", "column"]
    cells = frame.groupby(keys, sort=False)[list(metrics)].mean().reset_index()
    width = min(max(1.0 + 0.06 * len(groups) * (len(palette) + 3), 5.0), WIDTH)
    figure = new_figure(width, 0.8 + 1.75 * len(metrics))
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axes, metric in zip(panels, metrics, strict=True):
        for position, group in enumerate(groups):
            _violin_group(axes, cells[cells["group"] == group], metric, position, palette)
        _violin_frame(axes, metric, len(groups))
    counted = cells.dropna(subset=metrics[0]).drop_duplicates(["group", "row", "column"])
    counts = counted["group"].value_counts()
    names = [f"{group}\nn = {counts.get(group, 0)}" for group in groups]
    panels[-1].set_xticks(range(len(groups)), names, fontsize=SMALL - 0.5)
    text = "Depth group; n is the number of cells with any estimate"
    panels[-1].set_xlabel(text, fontsize=SMALL + 0.5)
    patches = [Patch(color=colour, alpha=0.75) for colour in palette.values()]
    legend_above(figure, patches, [label(name) for name in palette])
    return figure


def _violin_group(
    axes: Axes, frame: pd.DataFrame, metric: str, position: int, palette: Mapping[str, str]
) -> None:
    step = 0.84 / len(palette)
    for index, (estimate, colour) in enumerate(palette.items()):
        values = frame.loc[frame["estimate"] == estimate, metric].dropna().to_numpy()
        center = position + (index - (len(palette) - 1) / 2) * step
        if not values.size:
            continue
        if values.size < MIN_VIOLIN:
            axes.scatter(np.full(values.size, center), values, s=5, color=colour, alpha=0.8)
        else:
            drawn = [_without_tails(values)]
            parts = axes.violinplot(
                drawn, [center], widths=step * 0.95, showextrema=False, points=50
            )
            for body in cast("list[PolyCollection]", parts["bodies"]):
                body.set(facecolor=colour, alpha=0.75, edgecolor=colour, linewidth=0.5)
        line = "white" if colour == "#000000" and values.size >= MIN_VIOLIN else "black"
        axes.hlines(np.median(values), center - step / 3, center + step / 3, line, linewidth=1.1)


def _without_tails(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.size < MIN_TRIMMED:
        return values
    low, high = np.quantile(values, (0.01, 0.99))
    return np.asarray(values[(values >= low) & (values <= high)])


def _violin_frame(axes: Axes, metric: str, n_groups: int) -> None:
    for position in range(1, n_groups, 2):
        axes.axvspan(position - 0.5, position + 0.5, color="#F4F4F4", zorder=0)
    if metric == "bias":
        axes.axhline(0.0, color="#999999", linewidth=0.8, zorder=1)
    axes.set_xlim(-0.5, n_groups - 0.5)
    axes.set_ylabel(METRIC_LABELS.get(metric, metric), fontsize=SMALL + 0.5)
    tidy(axes)
    axes.tick_params(labelsize=SMALL)
