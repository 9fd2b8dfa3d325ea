"""Metrics by class of cells: boxes of the estimates, and letters that say which classes differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from deepprofile.evaluation.figures.style import (
    MAX_HEIGHT,
    METRIC_LABELS,
    SMALL,
    TINY,
    WIDTH,
    colours,
    in_words,
    label,
    legend_above,
    new_figure,
    subject_first,
    tidy,
)

CLASS_COLUMNS = {
    "cell_class": "Core or extra cells",
    "network": "Network",
    "land_cover": "Land cover",
    "texture": "Soil texture",
    "climate": "Climate (Köppen-Geiger)",
    "collocation": "Triple collocation",
}
"""Columns of classes in the order of the figure, with their titles."""
SIGNIFICANT = 0.05
_LINE = 26


@dataclass(frozen=True)
class ClassPanel:
    """One column of classes.

    Attributes:
        by: name of the column.
        cells: a line per ``class``, ``estimate`` and cell, with the metrics.
        sizes: number of cells of each class that is drawn, in the order of the panel.
        letters: by metric the letters of each class, see `letters`.
    """

    by: str
    cells: pd.DataFrame
    sizes: Mapping[str, int]
    letters: Mapping[str, Mapping[str, str]]


def letters(
    tests: pd.DataFrame, classes: Sequence[str], level: float = SIGNIFICANT
) -> dict[str, str]:
    """Letters of classes: two that share one don't differ significantly (Piepho 2004).

    Args:
        tests: pairs of classes in ``class_a`` and ``class_b`` with ``p_adjusted``.
        classes: names in the order in which letters are given.
        level: adjusted p-values below it count as different.

    Returns:
        Letters of each class; empty where no pair was tested.
    """
    known = tests[tests["p_adjusted"].notna()]
    if known.empty:
        return {}
    columns = [frozenset(classes)]
    for a, b in known.loc[known["p_adjusted"] < level, ["class_a", "class_b"]].to_numpy():
        split = [
            part
            for column in columns
            for part in ([column - {a}, column - {b}] if {a, b} <= column else [column])
        ]
        kept = dict.fromkeys(split)
        columns = [one for one in kept if not any(one < other for other in kept)]
    columns.sort(key=lambda column: [name not in column for name in classes])
    named = list(zip(ascii_lowercase, columns, strict=False))
    return {name: "".join(sign for sign, part in named if name in part) for name in classes}


def pages(panels: Sequence[ClassPanel], most: float = MAX_HEIGHT) -> list[list[ClassPanel]]:
    """Panels shared out over figures of at most so many inches; those without a class left out."""
    found: list[list[ClassPanel]] = []
    for panel in (panel for panel in panels if panel.sizes):
        if not found or _height([*found[-1], panel]) > most:
            found.append([])
        found[-1].append(panel)
    return found


def _height(panels: Sequence[ClassPanel]) -> float:
    n_estimates = panels[0].cells["estimate"].nunique()
    n_classes = sum(len(panel.sizes) for panel in panels)
    return 0.9 + 0.5 * len(panels) + (0.1 + 0.06 * n_estimates) * n_classes


def without_box(
    panel: ClassPanel, metrics: Sequence[str], min_cells: int
) -> dict[str, dict[str, list[str]]]:
    """Estimates that have too few cells with a value for a box: by estimate and class the metrics.

    Args:
        panel: what is drawn.
        metrics: columns that are drawn.
        min_cells: cells with a value that a box needs.
    """
    counts = panel.cells.groupby(["estimate", "class"], sort=False)[list(metrics)].count()
    found: dict[str, dict[str, list[str]]] = {}
    for estimate in dict.fromkeys(panel.cells["estimate"]):
        for name in panel.sizes:
            key = (estimate, name)
            there = counts.loc[key] if key in counts.index else dict.fromkeys(metrics, 0)
            few = [metric for metric in metrics if there[metric] < min_cells]
            if few:
                found.setdefault(estimate, {})[name] = few
    return found


def class_boxes(
    panels: Sequence[ClassPanel],
    metrics: Sequence[str] = ("r", "ubrmse"),
    subject: str = "",
    *,
    min_cells: int = 1,
) -> Figure:
    """Boxes of each metric by class and estimate; a row of panels for each column of classes.

    A box reaches from the lower to the upper quartile over cells, with the median as a line;
    whiskers end at the 5th and 95th percentile. Letters stand at the right.

    Args:
        panels: columns of classes; those without a class are left out.
        metrics: columns to draw.
        subject: name of the estimate that is judged, drawn in black.
        min_cells: cells with a value that a box needs; an estimate with fewer in a class has none
            there, see `without_box`.

    Raises:
        ValueError: if no panel has a class.
    """
    panels = [panel for panel in panels if panel.sizes]
    if not panels:
        raise ValueError("class_boxes needs at least one class to draw, found none")
    every = [name for panel in panels for name in panel.cells["estimate"]]
    palette = colours(every, subject)
    ordered = {name: palette[name] for name in subject_first(every, subject)}
    figure = new_figure(WIDTH, _height(panels))
    grid = figure.subplots(
        len(panels),
        len(metrics),
        sharex="col",
        squeeze=False,
        gridspec_kw={"height_ratios": [len(panel.sizes) + 0.3 for panel in panels]},
    )
    for row, panel in zip(grid, panels, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            _panel(axes, panel, metric, ordered, max(min_cells, 1))
        _name_classes(row[0], panel)
        for axes in row[1:]:
            axes.set_yticks([])
    for axes, metric in zip(grid[-1], metrics, strict=True):
        axes.set_xlabel(METRIC_LABELS.get(metric, metric), fontsize=SMALL + 0.5)
    patches = [Patch(color=colour) for colour in ordered.values()]
    legend_above(figure, patches, [label(name) for name in ordered])
    return figure


def _panel(
    axes: Axes, panel: ClassPanel, metric: str, palette: Mapping[str, str], min_cells: int
) -> None:
    step = 0.84 / len(palette)
    for i, (estimate, colour) in enumerate(palette.items()):
        rows = panel.cells[panel.cells["estimate"] == estimate]
        values = [rows.loc[rows["class"] == name, metric].dropna() for name in panel.sizes]
        shift = (i - (len(palette) - 1) / 2) * step
        found = {place + shift: v.to_numpy() for place, v in enumerate(values)
                 if len(v) >= min_cells}  # fmt: skip
        if found:
            _boxes(axes, found, step * 0.8, colour)
    for place, name in enumerate(panel.sizes):
        sign = panel.letters.get(metric, {}).get(name, "")
        axes.text(1.01, place, sign, transform=axes.get_yaxis_transform(), va="center",
                  fontsize=SMALL, fontweight="bold")  # fmt: skip
    for place in range(1, len(panel.sizes), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#F4F4F4", zorder=0)
    axes.set_ylim(len(panel.sizes) - 0.5, -0.5)
    tidy(axes, grid="x")
    axes.tick_params(labelsize=SMALL, labelbottom=True)


def _boxes(
    axes: Axes, values: Mapping[float, NDArray[np.float64]], width: float, colour: str
) -> None:
    axes.boxplot(
        list(values.values()),
        positions=list(values),
        widths=width,
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        showcaps=False,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": colour, "edgecolor": colour, "linewidth": 0.5},
        medianprops={"color": "white" if colour == "#000000" else "black"},
        whiskerprops={"color": colour, "linewidth": 0.9},
    )


def _name_classes(axes: Axes, panel: ClassPanel) -> None:
    names = [f"{_short(name)}\nn = {size}" for name, size in panel.sizes.items()]
    axes.set_yticks(range(len(names)), names, fontsize=TINY + 0.5)
    title = CLASS_COLUMNS.get(panel.by, panel.by.replace("_", " ").capitalize())
    axes.set_title(title, loc="left", fontsize=SMALL + 0.5, fontweight="bold")


def _short(name: str) -> str:
    """A name in at most two lines."""
    return "\n".join(wrap(in_words(name), _LINE, max_lines=2, placeholder=" …"))
