"""Maps of values at cells, as points on the plane of the EASE-2 grid."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.evaluation.figures.maps import Window, frame_window
from deepprofile.evaluation.figures.style import (
    METRIC_LABELS,
    SMALL,
    TINY,
    WIDTH,
    new_figure,
)

LAND_COLOUR = "#DCDCDC"
MOST_PIXELS = 1200
"""Pixels along a side of the map of land; a larger window is thinned out."""
SMALLEST_WINDOW = 24
"""Cells along a side of a map, at least."""
WIDE = 1.55
"""Maps wider than this times their height stand one below the other."""
DIVERGING = {"bias"}
MAPPED = ("r", "ubrmse", "bias")


def window_of(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Window:
    """West, east, south and north edge in metres of a map that holds cells, and some around."""
    x, y = grid.x_centers()[columns], grid.y_centers()[rows]
    west, east = _span(float(x.min()), float(x.max()), -grid.X_WEST)
    south, north = _span(float(y.min()), float(y.max()), grid.Y_NORTH)
    return west, east, south, north


def _span(low: float, high: float, limit: float) -> tuple[float, float]:
    half = max((high - low) * 0.55, SMALLEST_WINDOW / 2 * grid.CELL_SIZE)
    middle = (low + high) / 2
    return max(middle - half, -limit), min(middle + half, limit)


def value_scale(metric: str, values: NDArray[np.float64]) -> tuple[Normalize, str]:
    """Scale from the 2nd to the 98th percentile, even about 0 for a bias, and its colour map."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, (0.02, 0.98)) if known.size else (0.0, 1.0)
    if metric in DIVERGING:
        most = max(abs(float(low)), abs(float(high)), 1e-3)
        return Normalize(-most, most), "RdBu"
    return Normalize(float(low), float(max(high, low + 1e-3))), "cividis"


def skill_maps(
    cells: pd.DataFrame, land: xr.DataArray | None = None, metrics: Sequence[str] = MAPPED
) -> Figure:
    """A map for each metric, with a point for each cell.

    Args:
        cells: a line per cell with ``row``, ``column`` and the metrics.
        land: (y, x) with coordinates in metres, true on land, which is drawn in grey; without it
            the maps have a frame with degrees only.
        metrics: columns to draw.

    Raises:
        ValueError: if no cell has a value.
    """
    cells = cells.dropna(subset=list(metrics), how="all")
    if cells.empty:
        raise ValueError("skill_maps needs at least one cell with a value, found none")
    window = window_of(*_places(cells))
    shape = (window[1] - window[0]) / (window[3] - window[2])
    figure, panels = map_panels(len(metrics), shape, 1 if shape > WIDE else len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        scale, cmap = value_scale(metric, cells[metric].to_numpy(dtype=np.float64))
        points = point_map(axes, cells, metric, window, scale, cmap, land)
        n = int(cells[metric].notna().sum())
        axes.set_title(f"n = {n} cells", loc="left", fontsize=SMALL)
        bar = figure.colorbar(points, ax=axes, extend="both", shrink=0.9, aspect=18, pad=0.015)
        bar.set_label(METRIC_LABELS.get(metric, metric), fontsize=SMALL)
        bar.ax.tick_params(labelsize=TINY)
    return figure


def map_panels(n: int, shape: float, columns: int) -> tuple[Figure, list[Axes]]:
    """Panels of maps that are ``shape`` times as wide as high, so many side by side."""
    rows = -(-n // columns)
    width = (WIDTH - 0.5) / columns - 0.9 if n == rows else (WIDTH - 0.6) / columns - 0.35
    height = float(np.clip(width / shape, 0.9, 4.5))
    figure = new_figure(WIDTH, rows * (height + 0.42) + 0.25)
    grid_of = figure.subplots(rows, columns, squeeze=False)
    for axes in grid_of.flat[n:]:
        axes.set_axis_off()
    return figure, list(grid_of.flat[:n])


def point_map(
    axes: Axes,
    cells: pd.DataFrame,
    metric: str,
    window: Window,
    scale: Normalize,
    cmap: str,
    land: xr.DataArray | None,
) -> PathCollection:
    """Points of the cells that have a value, on land or on an empty frame; returns the points."""
    if land is not None:
        _draw_land(axes, land, window)
    shown = cells[cells[metric].notna()]
    rows, columns = _places(shown)
    points = axes.scatter(
        grid.x_centers()[columns],
        grid.y_centers()[rows],
        c=shown[metric].to_numpy(dtype=np.float64),
        norm=scale,
        cmap=cmap,
        s=float(np.clip(4000 / max(len(shown), 1), 3, 24)),
        edgecolor="black",
        linewidth=0.3,
        zorder=3,
        rasterized=len(shown) > 5000,
    )
    frame_window(axes, window, ticks=4)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(labelsize=TINY)
    return points


def _draw_land(axes: Axes, land: xr.DataArray, window: Window) -> None:
    image, extent = land_image(land, window)
    colour = np.array([int(LAND_COLOUR[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
    shades = np.where(image[..., None], colour, np.uint8(255)).astype(np.uint8)
    axes.imshow(shades, extent=extent, interpolation="nearest", zorder=0)


def land_image(land: xr.DataArray, window: Window) -> tuple[NDArray[np.bool_], Window]:
    """Land within a window as an image, north up, at most 1,200 pixels a side, and its edges."""
    west, east, south, north = window
    land = land.transpose("y", "x").sortby("y", ascending=False).sortby("x")
    part = land.sel(x=slice(west, east), y=slice(north, south))
    if not part.size:
        return np.zeros((1, 1), dtype=np.bool_), window
    step = max(-(-max(part.shape) // MOST_PIXELS), 1)
    part = part.isel(x=slice(None, None, step), y=slice(None, None, step))
    half = step * grid.CELL_SIZE / 2
    shift = half - grid.CELL_SIZE / 2
    x, y = part["x"].values + shift, part["y"].values - shift
    edges = (float(x[0] - half), float(x[-1] + half), float(y[-1] - half), float(y[0] + half))
    return np.asarray(part.values, dtype=np.bool_), edges


def _places(cells: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return cells["row"].to_numpy(dtype=np.int64), cells["column"].to_numpy(dtype=np.int64)
