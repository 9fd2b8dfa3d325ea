"""How figures and tables look: names, colours, and the way to image bytes.

The eight colours are those of Okabe and Ito (2008), which readers with any of the common colour
vision deficiencies can tell apart. Products keep the hue they have in the map of weights.
"""

import re
from collections.abc import Iterable
from io import BytesIO
from itertools import cycle
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LABELS = {
    "smap_l4": "SMAP L4",
    "era5_land": "ERA5-Land",
    "gldas": "GLDAS",
    "mean": "plain mean",
    "tc_mean": "TC-weighted mean",
    "deepprofile": "DeepProfile",
}
COLOURS = {
    "smap_l4": "#D55E00",
    "era5_land": "#009E73",
    "gldas": "#0072B2",
    "mean": "#CC79A7",
    "tc_mean": "#E69F00",
    "deepprofile": "#000000",
}
SPARE_COLOURS = ("#56B4E9", "#8C6D31", "#7F7F7F", "#5E3C99")
"""For names that have no colour of their own."""
NO_DATA = "#ECECEC"
MUTED = "#555555"
SOIL_MOISTURE_LABEL = "Soil moisture (m³ m⁻³)"


def label(name: str) -> str:
    """Readable form of a product's or an estimate's name."""
    return LABELS.get(name, name.replace("_", " "))


def in_words(code: str) -> str:
    """A CF flag meaning in words, with the products' readable names."""
    for name, readable in LABELS.items():
        code = re.sub(rf"(?<![a-z]){name}(?![a-z])", readable, code)
    return code.replace("_", " ")


def colours(names: Iterable[str]) -> dict[str, str]:
    """Colour of each name: its own where it has one, else a spare one in order of appearance."""
    distinct = list(dict.fromkeys(names))
    spare = cycle(SPARE_COLOURS)
    return {name: COLOURS.get(name) or next(spare) for name in distinct}


def new_figure(width: float, height: float) -> Figure:
    """Empty white figure of a size in inches, free of any global plotting state."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def tidy(axes: Axes, *, grid: Literal["x", "y", "both"] | None = "y") -> None:
    """Quiet frame and grid, small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(labelsize=8, color="#999999")
    if grid:
        axes.grid(axis=grid, color="#E3E3E3", linewidth=0.6)
        axes.set_axisbelow(True)


def heading(axes: Axes, text: str) -> None:
    """Title of a panel, above its left edge."""
    axes.set_title(text, loc="left", fontsize=9, fontweight="bold")


def image(figure: Figure, kind: Literal["png", "svg"], dpi: int = 160) -> bytes:
    """The figure as PNG or SVG bytes; equal figures give equal bytes."""
    buffer = BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "deepprofile"}):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata, bbox_inches="tight")
    return buffer.getvalue()
