"""Maps on the plane of the EASE-2 grid, and that of soil moisture.

Maps show the used window only: the rows and columns that hold data, with one cell around them.
Axes are projected metres, so cells are square and of equal area; ticks stand at round degrees.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.evaluation.figures.style import (
    NO_DATA,
    SOIL_MOISTURE_LABEL,
    heading,
    new_figure,
)

Window = tuple[float, float, float, float]
"""West, east, south and north edge of a map in metres."""


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
        show(axes, window, values, cmap="YlGnBu", norm=scale)
        frame_map(axes, window)
        heading(axes, f"{title}: median {np.nanmedian(values):.3f} m³ m⁻³")
        axes.label_outer()
    shades = ScalarMappable(scale, "YlGnBu")
    colour_bar(figure, list(panels), shades, SOIL_MOISTURE_LABEL, extend="both")
    return figure


def show(
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


def colour_bar(
    figure: Figure, panels: list[Axes], shades: ScalarMappable, text: str, extend: str = "neither"
) -> None:
    """Colour bar at the side of several panels, with its unit."""
    bar = figure.colorbar(shades, ax=panels, extend=extend, shrink=0.85, aspect=20)
    bar.set_label(text, fontsize=8)
    bar.ax.tick_params(labelsize=8)


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


def _extent(field: xr.DataArray) -> Window:
    """West, east, south, north edge in metres."""
    half = grid.CELL_SIZE / 2
    x, y = field["x"].values, field["y"].values
    return float(x[0] - half), float(x[-1] + half), float(y[-1] - half), float(y[0] + half)


def frame_map(axes: Axes, field: xr.DataArray, ticks: int = 5) -> None:
    """Window, equal aspect and ticks at round degrees for a map of ``field`` (…, y, x)."""
    frame_window(axes, _extent(field), ticks)
    axes.set_facecolor(NO_DATA)


def frame_window(axes: Axes, window: Window, ticks: int = 5) -> None:
    """Limits, equal aspect and ticks at round degrees.

    Args:
        axes: the panel.
        window: west, east, south and north edge in metres.
        ticks: about as many on each axis.
    """
    west, east, south, north = window
    axes.set(xlim=(west, east), ylim=(south, north), aspect="equal")
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
