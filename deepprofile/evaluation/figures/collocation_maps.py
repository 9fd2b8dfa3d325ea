"""Maps of triple collocation: weights, errors, and where and why it does not hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.evaluation.figures.maps import frame_map, used_window
from deepprofile.evaluation.figures.style import NO_DATA, heading, in_words, label

VALID = 0
VALID_COLOUR = "#DDE5EE"
REASON_COLOURS = ("#7F7F7F", "#8C6D31", "#D55E00", "#009E73", "#0072B2")
"""One for each reason in the order of the flag; negative error variances in the products' hues."""


def collocation_maps(
    fields: xr.Dataset,
    meanings: Sequence[str],
    invalid: Mapping[str, float],
    medians: Mapping[str, Sequence[float]],
) -> Figure:
    """Weight and error of three products, the share of invalid cells and their reasons.

    Args:
        fields: ``weight(product, y, x)``, ``error(product, y, x)`` in m³ m⁻³, ``invalid(y, x)``
            (share, NaN without land) and ``reason(y, x)`` (value of the flag), with the attribute
            ``factor``: cells of the grid along a side of one cell of the maps.
        meanings: of each value of the flag.
        invalid: share of all land cells by meaning, for those that are there.
        medians: ``weight`` and ``error`` (m³ m⁻³) of the three products over all valid cells.

    Raises:
        ValueError: if no cell is land.
    """
    shown = used_window(fields["invalid"].notnull())
    window = fields.sel(y=shown["y"], x=shown["x"])
    figure, panels, bars = _layout(*shown.shape)
    _three(panels[0], bars[0], window["weight"], medians["weight"], "Weight")
    _three(panels[1], bars[1], window["error"], medians["error"], "Error (m³ m⁻³)")
    _reasons(panels[2, 0], panels[2, 1], window["reason"], meanings, invalid)
    share, scale = panels[2, 2], Normalize(0.0, 1.0)
    _draw(share, window["invalid"], "magma_r", scale)
    heading(share, f"Not valid: {100 * sum(invalid.values()):.1f} %")
    _bar(figure, bars[2], "magma_r", scale, "Share of the land cells")
    for axes in (*panels[:2].flat, panels[2, 0], share):
        frame_map(axes, window["invalid"], ticks=3)
        if axes not in panels[:, 0]:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
        axes.set_xlabel("")
    return figure


def _layout(rows: int, columns: int) -> tuple[Figure, NDArray[Any], NDArray[Any]]:
    """A figure of three rows of three maps of so many cells, with a bar beside each row."""
    width = 3.6
    height = min(max(width * rows / columns, 0.8), 5.0)
    figure = Figure(figsize=(3 * width + 2.0, 3 * (height + 0.6)), facecolor="white")
    axes = figure.subplots(
        3,
        4,
        gridspec_kw={
            "width_ratios": (1, 1, 1, 0.04),
            "wspace": 0.08,
            "hspace": 0.5 / height,
            "left": 0.06,
            "right": 0.93,
            "top": 0.95,
            "bottom": 0.05,
        },
    )
    return figure, axes[:, :3], axes[:, 3]


def _three(
    panels: Sequence[Axes], bar: Axes, field: xr.DataArray, medians: Sequence[float], text: str
) -> None:
    known = field.values[np.isfinite(field.values)]
    scale = Normalize(0.0, max(float(np.quantile(known, 0.99)), 1e-3) if known.size else 1.0)
    for axes, product, median in zip(panels, field["product"].values, medians, strict=True):
        _draw(axes, field.sel(product=product), "cividis", scale)
        heading(axes, f"{text.split()[0]} of {label(str(product))}: median {median:.3f}")
    _bar(bar.get_figure(), bar, "cividis", scale, text, extend="max")


def _draw(axes: Axes, field: xr.DataArray, cmap: str, scale: Normalize) -> None:
    axes.imshow(field.values, cmap=cmap, norm=scale, extent=_extent(field), interpolation="nearest")


def _bar(
    figure: Any, axes: Axes, cmap: str, scale: Normalize, text: str, extend: str = "neither"
) -> None:
    figure.colorbar(ScalarMappable(scale, cmap), cax=axes, extend=extend)
    axes.set_ylabel(text, fontsize=8)
    axes.tick_params(labelsize=8)


def _reasons(
    axes: Axes,
    beside: Axes,
    reason: xr.DataArray,
    meanings: Sequence[str],
    invalid: Mapping[str, float],
) -> None:
    """The commonest reason of each cell of the map, with the share of all land cells."""
    colours = [VALID_COLOUR, *REASON_COLOURS]
    image = np.full((*reason.shape, 3), _rgb(NO_DATA), np.uint8)
    for value, colour in enumerate(colours[: len(meanings)]):
        image[reason.values == value] = _rgb(colour)
    axes.imshow(image, extent=_extent(reason), interpolation="nearest")
    heading(axes, "Why not valid (the commonest reason)")
    named = [
        Patch(color=colour, label=f"{in_words(meaning)}: {100 * invalid[meaning]:.1f} %")
        for meaning, colour in zip(meanings, colours, strict=False)
        if meaning in invalid
    ]
    valid = Patch(color=VALID_COLOUR, label=f"valid: {100 * (1 - sum(invalid.values())):.1f} %")
    beside.set_axis_off()
    beside.legend(
        handles=[valid, *named],
        title="Share of the land cells",
        loc="center left",
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        alignment="left",
    )


def _extent(field: xr.DataArray) -> tuple[float, float, float, float]:
    """West, east, south, north edge in metres, whatever the size of the cells."""
    x, y = field["x"].values, field["y"].values
    wide = (x[1] - x[0]) / 2 if x.size > 1 else grid.CELL_SIZE / 2
    return float(x[0] - wide), float(x[-1] + wide), float(y[-1] - wide), float(y[0] + wide)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
