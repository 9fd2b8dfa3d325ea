"""Figures of training and evaluation: loss curves, example profiles, violins by depth group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from deepprofile.evaluation.figures.style import (
    MUTED,
    SOIL_MOISTURE_LABEL,
    colours,
    heading,
    label,
    new_figure,
    tidy,
)
from deepprofile.evaluation.reference.depths import GROUP_NAMES
from deepprofile.profile import MAX_DEPTH, Layer, depth_matrix

LOSS_TERMS = {
    "total": "Total loss L",
    "surface": "L_surf: surface layer",
    "root": "L_root: weighted layers",
    "negative": "L_neg: θ(1 m) below 0",
    "smoothness": "L_o: size of β₂ … β₉, before λ",
}
LOSS_UNITS = {
    "total": "Loss",
    "surface": "Mean square (m⁶ m⁻⁶)",
    "root": "Weighted mean square (m⁶ m⁻⁶)",
    "negative": "Sum over a batch (m³ m⁻³)",
    "smoothness": "Penalty",
}
SPLIT_STYLES = {
    "train": ("#0072B2", "-", "training"),
    "validation": ("#D55E00", "--", "validation"),
    "validation_average": ("#D55E00", "D", "validation, averaged parameters"),
}
METRIC_LABELS = {"r": "R (dimensionless)", "ubrmse": "ubRMSE (m³ m⁻³)"}
MIN_VIOLIN = 10
"""Fewer values than this are drawn as points: a density of them would say too much."""
MIN_TRIMMED = 100
"""From so many values on the lowest and highest 1 % are left out of a violin's body."""


@dataclass(frozen=True)
class ExampleProfile:
    """One cell on one day, with everything that is known of its profile.

    Attributes:
        title: cell and date, such as ``"row 843, column 2020, 2016-05-02 (dry)"``.
        coefficients: the profile's coefficients, shape (n,), depth in metres.
        layers: the products' layers.
        layer_values: soil moisture of each layer in m³ m⁻³, NaN where there is none.
        station_depths: depths of station readings in metres, may be empty.
        station_values: the readings in m³ m⁻³.
        truth_depths: depths of known truth in metres (layer centres), may be empty.
        truth_values: the truth in m³ m⁻³.
    """

    title: str
    coefficients: NDArray[np.floating]
    layers: Sequence[Layer] = ()
    layer_values: Sequence[float] = ()
    station_depths: Sequence[float] = ()
    station_values: Sequence[float] = ()
    truth_depths: Sequence[float] = ()
    truth_values: Sequence[float] = ()


def loss_curves(history: pd.DataFrame) -> Figure:
    """Total loss and each of its terms by epoch, training and validation.

    Args:
        history: columns ``epoch``, ``split`` (train, validation, validation_average) and the
            terms ``total``, ``surface``, ``root``, ``negative``, ``smoothness``; a term that is
            absent is left out.

    Raises:
        ValueError: if ``epoch``, ``split`` or every term is missing.
    """
    terms = [term for term in LOSS_TERMS if term in history]
    if not terms or not {"epoch", "split"} <= set(history):
        raise ValueError(
            f"loss history has columns {', '.join(map(str, history.columns))}: expected epoch, "
            f"split and at least one of {', '.join(LOSS_TERMS)}"
        )
    figure = new_figure(10, 5.4)
    panels = np.ravel(figure.subplots(2, 3, sharex=True))
    for axes, term in zip(panels, terms, strict=False):
        _loss_panel(axes, history, term)
    for axes in panels[len(terms) :]:
        axes.set_axis_off()
    _legend_above(figure, *panels[0].get_legend_handles_labels())
    return figure


def _loss_panel(axes: Axes, history: pd.DataFrame, term: str) -> None:
    for split, (colour, style, name) in SPLIT_STYLES.items():
        rows = history[history["split"] == split]
        if rows[term].notna().any():
            axes.plot(rows["epoch"], rows[term], style, color=colour, label=name, linewidth=1.6)
    positive = history[term][history[term] > 0]
    if len(positive) == history[term].notna().sum() and len(positive):
        axes.set_yscale("log")
    elif len(positive):
        axes.set_yscale("symlog", linthresh=float(positive.min()))
        axes.set_ylim(bottom=0)
    heading(axes, LOSS_TERMS[term])
    tidy(axes, grid="both")
    axes.set_xlabel("Epoch", fontsize=8)
    axes.tick_params(labelbottom=True)
    axes.tick_params(which="minor", labelsize=7)
    axes.set_ylabel(LOSS_UNITS[term], fontsize=8)


def example_profiles(examples: Sequence[ExampleProfile], columns: int = 4) -> Figure:
    """Profiles θ(z) of a few cells and days beside layers, stations and truth.

    Raises:
        ValueError: if there is no example.
    """
    if not examples:
        raise ValueError("example_profiles needs at least one example, found none")
    columns = min(columns, len(examples))
    rows = -(-len(examples) // columns)
    figure = new_figure(max(2.6 * columns, 5.4), 0.6 + 3.3 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, example in zip(grid.flat, examples, strict=False):
        _profile_panel(axes, example)
    for axes in grid.flat[len(examples) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("Depth (cm)", fontsize=8)
    entries = {
        name: handle
        for axes in grid.flat
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    _legend_above(figure, list(entries.values()), list(entries))
    return figure


def _profile_panel(axes: Axes, example: ExampleProfile) -> None:
    depth = np.linspace(0.0, MAX_DEPTH, 201)
    curve = example.coefficients @ depth_matrix(depth, len(example.coefficients))
    if len(example.truth_depths):
        truth_depth = np.multiply(example.truth_depths, 100)
        axes.plot(example.truth_values, truth_depth, ":", color=MUTED, linewidth=2, label="truth")
    _layer_steps(axes, example)
    axes.plot(curve, depth * 100, color="black", linewidth=2.2, label="profile θ(z)", zorder=4)
    if len(example.station_depths):
        station_depth = np.multiply(example.station_depths, 100)
        axes.plot(
            example.station_values,
            station_depth,
            "o",
            color="#F0E442",
            markeredgecolor="black",
            label="stations",
            zorder=5,
        )
    axes.set_ylim(102, -2)
    axes.set_title(example.title, loc="left", fontsize=8, fontweight="bold")
    tidy(axes, grid="both")
    axes.tick_params(labelbottom=True)
    axes.set_xlabel(SOIL_MOISTURE_LABEL, fontsize=8)


def _layer_steps(axes: Axes, example: ExampleProfile) -> None:
    """Each product's layers as vertical bars, joined where one layer follows on the other."""
    named = list(zip(example.layers, example.layer_values, strict=True))
    palette = colours(layer.product for layer, _ in named)
    for product, colour in palette.items():
        values: list[float] = []
        depths: list[float] = []
        own = [(layer, value) for layer, value in named if layer.product == product]
        for layer, value in sorted(own, key=lambda pair: (pair[0].top, pair[0].bottom)):
            if depths and layer.top * 100 != depths[-1]:
                values.append(np.nan)
                depths.append(np.nan)
            values += [value, value]
            depths += [layer.top * 100, layer.bottom * 100]
        axes.plot(values, depths, color=colour, linewidth=1.6, label=f"{label(product)} layers")


def depth_groups(frame: pd.DataFrame) -> list[str]:
    """Groups of a table from the surface down, columns and groups of other names last."""
    found = [str(name) for name in frame["group"].unique()]
    return sorted(found, key=lambda name: (*GROUP_NAMES, *found).index(name))


def violins(frame: pd.DataFrame, metrics: Sequence[str] = ("r", "ubrmse")) -> Figure:
    """Distribution over cells of each metric, by depth group, the estimates side by side.

    Fewer than ten cells are drawn as points, and of a hundred or more the lowest and highest
    1 % are left out. The short line is the median of all cells.

    Args:
        frame: long table of one reference, with columns ``estimate``, ``group``, ``row``,
            ``column`` and the metrics; several series of a cell and group are averaged.
        metrics: columns to draw, one panel each.

    Raises:
        ValueError: if the frame is empty.
    """
    if frame.empty:
        raise ValueError("violins need at least one row of metrics, found an empty table")
    groups, palette = depth_groups(frame), colours(frame["estimate"])
    keys = ["estimate", "group", "row", "column"]
    cells = frame.groupby(keys, sort=False)[list(metrics)].mean().reset_index()
    figure = new_figure(max(1.0 + 1.15 * len(groups), 6.0), 0.8 + 2.9 * len(metrics))
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axes, metric in zip(panels, metrics, strict=True):
        for position, group in enumerate(groups):
            _violin_group(axes, cells[cells["group"] == group], metric, position, palette)
        _violin_frame(axes, METRIC_LABELS.get(metric, metric), len(groups))
    counted = cells.dropna(subset=metrics[0]).drop_duplicates(["group", "row", "column"])
    counts = counted["group"].value_counts()
    names = [f"{group}\nn = {counts.get(group, 0)}" for group in groups]
    panels[-1].set_xticks(range(len(groups)), names, fontsize=8)
    panels[-1].set_xlabel("Depth group, with the number of cells", fontsize=8)
    patches = [Patch(color=colour, alpha=0.75) for colour in palette.values()]
    _legend_above(figure, patches, [label(name) for name in palette])
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
            axes.scatter(np.full(values.size, center), values, s=12, color=colour, alpha=0.8)
        else:
            drawn = [_without_tails(values)]
            parts = axes.violinplot(drawn, [center], widths=step * 0.95, showextrema=False)
            for body in cast("list[PolyCollection]", parts["bodies"]):
                body.set(facecolor=colour, alpha=0.75, edgecolor=colour, linewidth=0.5)
        line = "white" if colour == "#000000" and values.size >= MIN_VIOLIN else "black"
        axes.hlines(np.median(values), center - step / 3, center + step / 3, line, linewidth=1.4)


def _without_tails(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.size < MIN_TRIMMED:
        return values
    low, high = np.quantile(values, (0.01, 0.99))
    return np.asarray(values[(values >= low) & (values <= high)])


def _violin_frame(axes: Axes, name: str, n_groups: int) -> None:
    for position in range(1, n_groups, 2):
        axes.axvspan(position - 0.5, position + 0.5, color="#F4F4F4", zorder=0)
    axes.set_xlim(-0.5, n_groups - 0.5)
    axes.set_ylabel(name, fontsize=8)
    tidy(axes)


def _legend_above(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    columns = min(len(names), 6)
    figure.legend(
        handles, names, loc="outside upper center", ncols=columns, frameon=False, fontsize=8
    )
