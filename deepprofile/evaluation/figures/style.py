"""How figures and tables look: names, colours, and the way to image bytes.

The eight colours are those of Okabe and Ito (2008), which readers with any of the common colour
vision deficiencies can tell apart. Products keep the hue they have in the map of weights.
"""

import re
from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import cycle
from typing import Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Kind = Literal["png", "svg", "pdf"]
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
    "climatology": "#999999",
}
SUBJECT_COLOUR = "#000000"
SPARE_COLOURS = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#0072B2", "#E69F00", "#F0E442")
"""For names that have no colour of their own, as far as they are free."""
LAST_COLOURS = ("#8C6D31", "#7F7F7F", "#5E3C99")
"""For more names than eight."""
WIDTH = 7.5
"""Inches of a figure over two columns of a journal (190 mm)."""
MAX_HEIGHT = 9.2
"""Inches of a figure: a page of a journal, without the caption."""
SMALL = 7.0
"""Size in points of most text."""
TINY = 6.0
METRIC_LABELS = {
    "r": "R (dimensionless)",
    "anomaly_r": "Anomaly R (dimensionless)",
    "ubrmse": "ubRMSE (m³ m⁻³)",
    "ubrmsd": "ubRMSD (m³ m⁻³)",
    "rmse": "RMSE (m³ m⁻³)",
    "rmsd": "RMSD (m³ m⁻³)",
    "bias": "Bias (m³ m⁻³)",
    "spearman": "Spearman's R (dimensionless)",
    "kge": "KGE (dimensionless)",
}
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


def colours(names: Iterable[str], subject: str = "") -> dict[str, str]:
    """Colour of each name: its own, black for the subject, else a free one in order of appearance.

    Args:
        names: names of products or estimates, also repeated ones.
        subject: name of the estimate that is judged.
    """
    distinct = list(dict.fromkeys(names))
    own = {name: COLOURS[name] for name in distinct if name in COLOURS}
    if subject in distinct and SUBJECT_COLOUR not in own.values():
        own[subject] = SUBJECT_COLOUR
    free = [colour for colour in SPARE_COLOURS if colour not in own.values()]
    spare = cycle([*free, *LAST_COLOURS])
    return {name: own.get(name) or next(spare) for name in distinct}


def subject_first(names: Iterable[str], subject: str) -> list[str]:
    """Distinct names in order of appearance, the subject before all others."""
    return sorted(dict.fromkeys(names), key=lambda name: name != subject)


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


def legend_above(
    figure: Figure, handles: Sequence[Artist], names: Sequence[str], markerscale: float = 1.0
) -> None:
    """A legend of one or several lines above all panels, no wider than the figure."""
    longest = max((len(name) for name in names), default=1)
    fits = int(figure.get_figwidth() / (0.45 + 0.06 * longest))
    figure.legend(
        handles,
        names,
        loc="outside upper center",
        ncols=max(min(len(names), fits), 1),
        frameon=False,
        fontsize=SMALL + 0.5,
        handlelength=1.6,
        markerscale=markerscale,
    )


def grouped(number: int) -> str:
    """A number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\N{THIN SPACE}")


def image(figure: Figure, kind: Kind, dpi: int = 160, *, tight: bool = True) -> bytes:
    """The figure as bytes of a PNG, SVG or PDF file; equal figures give equal bytes.

    Args:
        figure: the figure.
        kind: form.
        dpi: pixels per inch.
        tight: cut to what is drawn; a figure whose layout is found by itself needs it not.
    """
    buffer = BytesIO()
    bounds = "tight" if tight else None
    with matplotlib.rc_context({"svg.hashsalt": "deepprofile", "pdf.fonttype": 42}):
        figure.savefig(
            buffer, format=kind, dpi=dpi, metadata={_DATES[kind]: None}, bbox_inches=bounds
        )
    return buffer.getvalue()


def images(figure: Figure, kinds: Sequence[Kind] = ("png", "svg", "pdf")) -> dict[Kind, bytes]:
    """Several forms of one figure; where its layout is found by itself, it is found once."""
    tight = figure.get_layout_engine() is None
    if not tight:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return {kind: image(figure, kind, tight=tight) for kind in kinds}


_DATES: dict[Kind, str] = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}
