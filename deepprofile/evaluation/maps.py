"""Maps on the plane of the EASE-2 grid: triple-collocation weights and soil moisture.

Maps show the used window only: the rows and columns that hold data, with one cell around them.
Axes are projected metres, so cells are square and of equal area; ticks stand at round degrees.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from textwrap import fill

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.evaluation.style import (
    NO_DATA,
    SOIL_MOISTURE_LABEL,
    heading,
    in_words,
    label,
    new_figure,
)

MARKERS = ("x", "o", "^", "s", "D", "v", "P", "*")
"""One for each reason for which a cell has no valid collocation."""
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
    _show(main, weight, _mixed_colour(weight.values))
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
        _show(axes, weight, values, cmap="cividis", norm=scale)
        frame_map(axes, weight, ticks=3)
        heading(axes, f"Weight of {label(product)}")
        axes.label_outer()
    _colour_bar(figure, panels, ScalarMappable(scale, "cividis"), "Weight (dimensionless)")


def moisture_maps(fields: Mapping[str, xr.DataArray]) -> Figure:
    """Soil moisture of one day at several depths, side by side on one colour scale.

    Args:
        fields: title of the panel, such as ``"5 cm"``, to soil moisture (y, x) in m³ m⁻³ with
            coordinates x and y in metres; NaN where there is none.

    Raises:
        ValueError: if no field is given or none holds a value.
    """
    if not fields:
        raise ValueError("moisture_maps needs at least one field, found none")
    bare = [field.reset_coords(drop=True) for field in fields.values()]
    stack = xr.concat(bare, dim="panel").transpose("panel", "y", "x")
    shown = used_window(stack.notnull().any("panel"))
    window = stack.sel(y=shown["y"], x=shown["x"])
    low, high = np.nanquantile(window.values, (0.01, 0.99))
    scale = Normalize(float(low), float(max(high, low + 1e-3)))
    figure = new_figure(1.0 + 4.3 * len(fields), 4.6)
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(fields))))
    for axes, title, values in zip(panels, fields, window.values, strict=True):
        _show(axes, window, values, cmap="YlGnBu", norm=scale)
        frame_map(axes, window)
        heading(axes, f"{title}: median {np.nanmedian(values):.3f} m³ m⁻³")
        axes.label_outer()
    shades = ScalarMappable(scale, "YlGnBu")
    _colour_bar(figure, list(panels), shades, SOIL_MOISTURE_LABEL, extend="both")
    return figure


def flag_reasons(flag: xr.DataArray) -> dict[int, str]:
    """What each value of a flag means, from its CF attributes, in words."""
    values = np.atleast_1d(flag.attrs.get("flag_values", ()))
    meanings = str(flag.attrs.get("flag_meanings", "")).split()
    named = {int(v): in_words(m) for v, m in zip(values, meanings, strict=True)}
    found = (int(value) for value in np.unique(flag.values[np.isfinite(flag.values)]))
    return named | {value: f"flag {value}" for value in found if value not in named}


def _show(
    axes: Axes,
    field: xr.DataArray,
    values: NDArray[np.float64],
    cmap: str | None = None,
    norm: Normalize | None = None,
) -> None:
    """Values (y, x) or colours (y, x, 4) on the window of ``field``."""
    axes.imshow(
        values,
        origin="upper",
        interpolation="nearest",
        extent=_extent(field),
        cmap=cmap,
        norm=norm,
    )


def _colour_bar(
    figure: Figure, panels: list[Axes], shades: ScalarMappable, text: str, extend: str = "neither"
) -> None:
    bar = figure.colorbar(shades, ax=panels, extend=extend, shrink=0.85, aspect=20)
    bar.set_label(text, fontsize=8)
    bar.ax.tick_params(labelsize=8)


def shown_cells(collocation: xr.Dataset, land: xr.DataArray | None) -> xr.DataArray:
    """Cells (y, x) that count: land where it is given, else those with a finite weight."""
    if land is not None:
        return land.reset_coords(drop=True).astype(bool)
    return collocation["weight"].notnull().all("product").reset_coords(drop=True)


def used_window(used: xr.DataArray) -> xr.DataArray:
    """The rows and columns of a mask (y, x) that hold used cells, and one around; north is up.

    Raises:
        ValueError: if no cell is used.
    """
    used = used.transpose("y", "x").sortby("y", ascending=False).sortby("x")
    mask: NDArray[np.bool_] = used.values
    if not mask.any():
        raise ValueError(
            f"a map of {used.sizes['y']} x {used.sizes['x']} cells has no cell with a value: "
            "expected at least one finite value on land"
        )
    rows, columns = np.nonzero(mask)
    return used.isel(y=_span(rows), x=_span(columns))


def _span(indices: NDArray[np.int64]) -> slice:
    return slice(max(int(indices.min()) - 1, 0), int(indices.max()) + 2)


def _extent(field: xr.DataArray) -> tuple[float, float, float, float]:
    """West, east, south, north edge in metres."""
    half = grid.CELL_SIZE / 2
    x, y = field["x"].values, field["y"].values
    return float(x[0] - half), float(x[-1] + half), float(y[-1] - half), float(y[0] + half)


def frame_map(axes: Axes, field: xr.DataArray, ticks: int = 5) -> None:
    """Window, equal aspect and ticks at round degrees for a map of ``field`` (…, y, x)."""
    west, east, south, north = _extent(field)
    axes.set(xlim=(west, east), ylim=(south, north), aspect="equal", facecolor=NO_DATA)
    _degree_ticks(axes.xaxis, grid.longitudes(), grid.x_centers(), (west, east), "EW", ticks)
    north_up = slice(None, None, -1)
    latitudes, y = grid.latitudes()[north_up], grid.y_centers()[north_up]
    _degree_ticks(axes.yaxis, latitudes, y, (south, north), "NS", ticks)
    axes.set_xlabel("Longitude", fontsize=8)
    axes.set_ylabel("Latitude", fontsize=8)
    axes.tick_params(labelsize=7.5, color="#999999")
    axes.spines[:].set_color("#999999")


def _degree_ticks(
    axis: Axis,
    degrees: NDArray[np.float64],
    positions: NDArray[np.float64],
    limits: tuple[float, float],
    signs: str,
    n: int,
) -> None:
    """Ticks at round degrees inside ``limits`` (m), where degrees belong to positions (m)."""
    first, last = np.interp(limits, positions, degrees)
    locator = MaxNLocator(n, steps=(1, 2, 2.5, 5, 10))
    values = np.asarray(locator.tick_values(first, last))
    values = values[(values >= first) & (values <= last)]
    names = [f"{abs(value):.4g}° {signs[0] if value >= 0 else signs[1]}" for value in values]
    axis.set_ticks(np.interp(values, degrees, positions), names)


def _mixed_colour(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (…, 4) of weights (3, …): gamma-encoded mixture, transparent where not finite."""
    known = np.asarray(np.isfinite(weights).all(axis=0))
    light = np.clip(np.where(known, weights, 0.0), 0.0, 1.0) ** (1 / 2.2)
    return np.moveaxis(np.concatenate([light, known[None]]), 0, -1)


def _mark_invalid(axes: Axes, flag: xr.DataArray, shown: NDArray[np.bool_]) -> None:
    """A marker on every shown cell without a valid collocation, one kind for each reason."""
    size = 0.45 * 72 * 6.0 / max(flag.shape)
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
            linewidth=0.9,
            label=f"{reason} ({rows.size})",
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
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
