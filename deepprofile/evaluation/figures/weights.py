"""Map of the weights of triple collocation: three products as red, green and blue."""

from collections.abc import Sequence
from itertools import cycle
from textwrap import fill

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from deepprofile.evaluation.figures.maps import colour_bar, frame_map, show, used_window
from deepprofile.evaluation.figures.style import heading, in_words, label, new_figure

MARKERS = ("x", "o", "^", "s", "D", "v", "P", "*")
"""One for each reason for which a cell has no valid collocation."""
SMALLEST_HALO = 2.0
"""Markers up to this size in points have no white rim; a globe has hundreds of thousands."""
VALID = 0
"""Value of the flag where the collocation is valid."""


def weights_map(collocation: xr.Dataset, land: xr.DataArray | None = None) -> Figure:
    """Weights of three products as one colour a cell, and each product's weight by itself.

    The first product is red, the second green, the third blue; weights are taken as linear
    light and encoded with exponent 1/2.2, so that equal weights give a middle grey. Cells
    without a valid collocation show the fallback weights under a marker that gives the reason.

    Args:
        collocation: ``weight(product, y, x)``, dimensionless, summing to 1, and ``flag(y, x)``
            with CF ``flag_values`` and ``flag_meanings`` (0: valid).
        land: (y, x), true for the cells to show; without it those with a finite weight.

    Raises:
        ValueError: if there are not exactly three products or no cell has a weight.
    """
    weight = collocation["weight"]
    products = [str(name) for name in weight["product"].values]
    if len(products) != 3:
        raise ValueError(
            f"the colour map of weights mixes red, green and blue and needs three products; "
            f"found {len(products)}: {', '.join(products)}"
        )
    shown = used_window(shown_cells(collocation, land))
    place = {"y": shown["y"], "x": shown["x"]}
    weight = weight.transpose("product", "y", "x").sel(place).where(shown)
    flag = collocation["flag"].transpose("y", "x").sel(place)
    figure = new_figure(9.5, 9.0)
    layout = figure.add_gridspec(3, 3, height_ratios=(1.15, 1.15, 1.25))
    main = figure.add_subplot(layout[:2, :2])
    show(main, weight, _mixed_colour(weight.values))
    frame_map(main, weight)
    heading(main, "Weights as colour")
    _mark_invalid(main, flag, shown.values)
    _triangle_legend(figure.add_subplot(layout[0, 2]), products, weight.values)
    _reason_legend(figure.add_subplot(layout[1, 2]), main)
    panels = [figure.add_subplot(layout[2, i]) for i in range(3)]
    _single_weights(figure, panels, weight, products)
    return figure


def _single_weights(
    figure: Figure, panels: list[Axes], weight: xr.DataArray, products: Sequence[str]
) -> None:
    scale = Normalize(0.0, float(np.ceil(np.nanmax(weight.values) * 10) / 10))
    for axes, product, values in zip(panels, products, weight.values, strict=True):
        show(axes, weight, values, cmap="cividis", norm=scale)
        frame_map(axes, weight, ticks=3)
        heading(axes, f"Weight of {label(product)}")
        axes.label_outer()
    colour_bar(figure, panels, ScalarMappable(scale, "cividis"), "Weight (dimensionless)")


def flag_reasons(flag: xr.DataArray) -> dict[int, str]:
    """What each value of a flag means, from its CF attributes, in words."""
    values = np.atleast_1d(flag.attrs.get("flag_values", ()))
    meanings = str(flag.attrs.get("flag_meanings", "")).split()
    named = {int(v): in_words(m) for v, m in zip(values, meanings, strict=True)}
    found = (int(value) for value in np.unique(flag.values[np.isfinite(flag.values)]))
    return named | {value: f"flag {value}" for value in found if value not in named}


def shown_cells(collocation: xr.Dataset, land: xr.DataArray | None) -> xr.DataArray:
    """Cells (y, x) that count: land where it is given, else those with a finite weight."""
    if land is not None:
        return land.reset_coords(drop=True).astype(bool)
    return collocation["weight"].notnull().all("product").reset_coords(drop=True)


def _mixed_colour(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (…, 4) of weights (3, …): gamma-encoded mixture, transparent where not finite."""
    known = np.asarray(np.isfinite(weights).all(axis=0))
    light = np.clip(np.where(known, weights, 0.0), 0.0, 1.0) ** (1 / 2.2)
    return np.moveaxis(np.concatenate([light, known[None]]), 0, -1)


def _mark_invalid(axes: Axes, flag: xr.DataArray, shown: NDArray[np.bool_]) -> None:
    """A marker on every shown cell without a valid collocation, one kind for each reason."""
    size = 0.45 * 72 * 6.0 / max(flag.shape)
    halo = [withStroke(linewidth=2.2, foreground="white")] if size > SMALLEST_HALO else None
    reasons = {value: name for value, name in flag_reasons(flag).items() if value != VALID}
    for marker, (value, reason) in zip(cycle(MARKERS), reasons.items(), strict=False):
        rows, columns = np.nonzero(shown & (flag.values == value))
        if not rows.size:
            continue
        axes.scatter(
            flag["x"].values[columns],
            flag["y"].values[rows],
            s=size**2,
            marker=marker,
            facecolor="none" if marker != "x" else "black",
            edgecolor="black" if marker != "x" else None,
            linewidth=min(0.9, size / 5),
            label=f"{reason} ({rows.size})",
            path_effects=halo,
        )


def _reason_legend(axes: Axes, source: Axes) -> None:
    axes.set_axis_off()
    handles, names = source.get_legend_handles_labels()
    title = "Not valid, because (cells)" if handles else "All cells are valid"
    axes.legend(
        handles,
        [fill(name, 30) for name in names],
        title=title,
        loc="upper left",
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        alignment="left",
        markerscale=1.0,
    )


def _triangle_legend(
    axes: Axes, products: Sequence[str], weights: NDArray[np.float64], n: int = 200
) -> None:
    """Colour of every mixture, with the cells' own weights as points."""
    height = 3**0.5 / 2
    x, y = np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(n) + 0.5) / n * height)
    top = y / height
    right = x - top / 2
    shares = np.asarray(np.stack([top, 1 - top - right, right], dtype=np.float64))
    inside = np.asarray(shares.min(axis=0) >= 0)
    colour = _mixed_colour(np.where(inside[None], shares, np.nan))
    axes.imshow(colour, origin="lower", extent=(0, 1, 0, height), aspect="equal")
    known = weights[:, np.asarray(np.isfinite(weights).all(axis=0))]
    axes.scatter(known[2] + known[0] / 2, known[0] * height, s=2.0, color="black", linewidth=0)
    corners = ((0.5, height + 0.04, "bottom"), (0.0, -0.04, "top"), (1.0, -0.04, "top"))
    for (left, bottom, side), product, name in zip(
        corners, products, ("red", "green", "blue"), strict=True
    ):
        text = f"{label(product)}\n({name})"
        axes.text(left, bottom, text, ha="center", va=side, fontsize=8)
    axes.set(xlim=(-0.15, 1.15), ylim=(-0.3, height + 0.3))
    axes.set_axis_off()
