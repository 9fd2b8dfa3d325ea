"""Figures of training and prediction: loss curves and example profiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepprofile.evaluation.figures.style import (
    MUTED,
    SOIL_MOISTURE_LABEL,
    colours,
    heading,
    label,
    legend_above,
    new_figure,
    tidy,
)
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
    legend_above(figure, *panels[0].get_legend_handles_labels())
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
    legend_above(figure, list(entries.values()), list(entries))
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
