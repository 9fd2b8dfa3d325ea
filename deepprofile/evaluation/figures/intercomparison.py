"""Differences between an estimate and layers of products: maps, and medians in colour."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from deepprofile.evaluation.figures.station_maps import (
    WIDE,
    map_panels,
    point_map,
    value_scale,
    window_of,
)
from deepprofile.evaluation.figures.style import (
    METRIC_LABELS,
    SMALL,
    TINY,
    WIDTH,
    label,
    new_figure,
)

KEYS = ["product", "top", "bottom"]
METRICS = ("rmsd", "ubrmsd", "r", "bias")


def layer_name(product: str, top: float, bottom: float) -> str:
    """Readable name of a product's layer."""
    return f"{label(product)} {100 * top:g}-{100 * bottom:g} cm"


def layer_maps(table: pd.DataFrame, metric: str, land: xr.DataArray | None = None) -> Figure:
    """A map for each layer, all on one scale.

    Args:
        table: lines per cell and layer, see `skill.intercomparison`, of one estimate.
        metric: column to draw.
        land: see `station_maps.skill_maps`.

    Raises:
        ValueError: if no cell has a value.
    """
    known = table[table[metric].notna()]
    if known.empty:
        raise ValueError(f"layer_maps needs at least one cell with a value of {metric}, found none")
    layers = [
        (layer_name(*key), known[(known[KEYS] == list(key)).all(axis=1)])
        for key in known[KEYS].drop_duplicates().itertuples(index=False, name=None)
    ]
    window = window_of(known["row"].to_numpy(np.int64), known["column"].to_numpy(np.int64))
    shape = (window[1] - window[0]) / (window[3] - window[2])
    columns = min(2 if shape > WIDE else 4, len(layers))
    figure, panels = map_panels(len(layers), shape, columns)
    scale, cmap = value_scale(metric, known[metric].to_numpy(dtype=np.float64))
    for place, (axes, (name, cells)) in enumerate(zip(panels, layers, strict=True)):
        points = point_map(axes, cells, metric, window, scale, cmap, land)
        median = cells[metric].median()
        text = f"{name}\nmedian {median:.3f}, n = {len(cells)}".replace(" -", " −")
        axes.set_title(text, loc="left", fontsize=SMALL - 0.5)
        below = place + columns < len(layers)
        axes.tick_params(labelbottom=not below, labelleft=place % columns == 0)
    bar = figure.colorbar(points, ax=panels, extend="both", shrink=0.7, aspect=25, pad=0.015)
    bar.set_label(METRIC_LABELS.get(metric, metric), fontsize=SMALL)
    bar.ax.tick_params(labelsize=TINY)
    return figure


def layer_medians(summary: pd.DataFrame, metrics: Sequence[str] = METRICS) -> Figure:
    """Medians over cells, with quartiles, of each metric (across) and layer (down), coloured.

    Args:
        summary: from `skill.intercomparison.medians`, of one estimate.
        metrics: columns to draw; the colours of each are a scale of its own.

    Raises:
        ValueError: if the table is empty.
    """
    if summary.empty:
        raise ValueError("layer_medians needs at least one layer, found an empty table")
    figure = new_figure(WIDTH, 0.55 + 0.3 * len(summary))
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(metrics), sharey=True)))
    for axes, metric in zip(panels, metrics, strict=True):
        _medians(axes, summary, metric)
    names = [
        f"{layer_name(*key)}  (n = {n})"
        for *key, n in summary[[*KEYS, "n_cells"]].itertuples(index=False, name=None)
    ]
    panels[0].set_yticks(range(len(names)), names, fontsize=SMALL)
    return figure


def _medians(axes: Axes, summary: pd.DataFrame, metric: str) -> None:
    values = summary[metric].to_numpy(dtype=np.float64)
    scale, cmap = value_scale(metric, values)
    if np.isfinite(values).any() and metric != "bias":
        scale = Normalize(float(np.nanmin(values)), float(np.nanmax(values)) + 1e-6)
    image = axes.imshow(values[:, None], cmap=cmap, norm=scale, aspect="auto", alpha=0.85)
    digits = 3
    for place, (value, low, high) in enumerate(
        zip(values, summary[f"{metric}_q25"], summary[f"{metric}_q75"], strict=True)
    ):
        if not np.isfinite(value):
            axes.text(0, place, "–", ha="center", va="center", fontsize=SMALL)
            continue
        red, green, blue, _ = image.cmap(scale(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        text = f"{value:.{digits}f}\n[{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")
        axes.text(0, place, text, ha="center", va="center", fontsize=TINY + 0.3,
                  color="white" if dark else "black")  # fmt: skip
    axes.set_title(METRIC_LABELS.get(metric, metric), fontsize=SMALL)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
