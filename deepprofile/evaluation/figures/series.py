"""Time series of a reference and estimates in example cells, and which cells are examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepprofile.evaluation.assessment import DailySeries
from deepprofile.evaluation.figures.style import (
    SMALL,
    SOIL_MOISTURE_LABEL,
    WIDTH,
    colours,
    label,
    legend_above,
    new_figure,
    subject_first,
    tidy,
)
from deepprofile.evaluation.reference.depths import GROUP_NAMES

MAX_DEPTHS = 5
MAX_ESTIMATES = 5
"""More lines than this in one panel can't be told apart."""
MANY = 1800
"""Spans from which on lines and points are thinner."""
REFERENCE_COLOUR = "#6E6E6E"


@dataclass(frozen=True)
class ExampleCell:
    """A cell that stands for others.

    Attributes:
        why: such as ``"best"``; several reasons are joined.
        row: row of the grid.
        column: column of the grid.
        r: median over its series of the subject's R.
    """

    why: str
    row: int
    column: int
    r: float


def example_cells(metrics: pd.DataFrame, series: DailySeries, subject: str) -> list[ExampleCell]:
    """The cells with the best, the middle and the lowest skill, and the one with most depths.

    Skill is the median over a cell's series of the subject's R; of equal cells the first by row
    and column counts, of an even number the lower middle one. Of cells with as many depths the one
    with the most days counts.

    Args:
        metrics: long table of one reference.
        series: series; cells without any are no examples.
        subject: name of the estimate that is judged.

    Returns:
        At most four cells, each once; none where the subject has no R.
    """
    own = metrics[(metrics["estimate"] == subject) & metrics["r"].notna()]
    there = series.table[["row", "column"]].drop_duplicates()
    own = own.merge(there, on=["row", "column"])
    if own.empty:
        return []
    cells = own.groupby(["row", "column"]).agg(
        r=("r", "median"), depths=("group", "nunique"), n=("n", "sum")
    )
    ranked = cells.sort_values("r", ascending=False, kind="stable")
    richest = cells.sort_values(["depths", "n"], ascending=False, kind="stable")
    chosen = {
        "best": ranked.index[0],
        "middle": ranked.index[len(ranked) // 2],
        "lowest": ranked.index[-1],
        "most depths": richest.index[0],
    }
    reasons: dict[tuple[int, int], list[str]] = {}
    for why, cell in chosen.items():
        reasons.setdefault(cell, []).append(why)
    skill = cells["r"].to_dict()
    return [
        ExampleCell(" and ".join(why), int(cell[0]), int(cell[1]), float(skill[cell]))
        for cell, why in reasons.items()
    ]


def drawn_estimates(names: Sequence[str], subject: str) -> list[str]:
    """The subject and as many others, in the order given, as can be told apart."""
    return subject_first(names, subject)[:MAX_ESTIMATES]


def drawn_series(series: DailySeries, reference: str, cell: ExampleCell) -> NDArray[np.int64]:
    """Positions of a cell's series, from the surface down, at most five spread over its depths."""
    table = series.table
    here = (table["reference"] == reference) & (table["row"] == cell.row)
    here &= table["column"] == cell.column
    at = np.flatnonzero(here)
    ranks = {group: rank for rank, group in enumerate(GROUP_NAMES)}
    place = np.array([ranks.get(group, len(ranks)) for group in table["group"].to_numpy()[at]])
    order = at[np.lexsort((table["bottom"].to_numpy()[at], place))]
    if order.size <= MAX_DEPTHS:
        return order
    return order[np.linspace(0, order.size - 1, MAX_DEPTHS).round().astype(np.int64)]


def series_panels(series: DailySeries, positions: NDArray[np.int64], subject: str) -> Figure:
    """One panel per series: the reference as points, estimates as lines, on one axis of time.

    Args:
        series: series.
        positions: which of them, one panel each.
        subject: name of the estimate that is judged, drawn above the others in black.

    Raises:
        ValueError: if no position is given.
    """
    if not positions.size:
        raise ValueError("series_panels needs at least one series, found none")
    palette = colours(series.estimates, subject)
    names = drawn_estimates(list(series.estimates), subject)
    figure = new_figure(WIDTH, 0.7 + 1.25 * positions.size)
    panels = figure.subplots(positions.size, 1, sharex=True, squeeze=False)[:, 0]
    days = series.days.astype("datetime64[D]")
    used = np.isfinite(series.truth[positions]).any(axis=0)
    span = np.flatnonzero(used) if used.any() else np.arange(days.size)
    shown = slice(int(span[0]), int(span[-1]) + 1)
    for axes, position in zip(panels, positions, strict=True):
        _panel(axes, series, int(position), shown, {name: palette[name] for name in names}, subject)
    locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(
        ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    )
    panels[-1].set_xlim(days[shown][0], days[shown][-1] + np.timedelta64(series.step, "D"))
    figure.supylabel(SOIL_MOISTURE_LABEL, fontsize=SMALL + 0.5)
    handles, texts = panels[0].get_legend_handles_labels()
    legend_above(figure, handles, texts, markerscale=3.0)
    return figure


def _panel(
    axes: Axes,
    series: DailySeries,
    position: int,
    shown: slice,
    palette: dict[str, str],
    subject: str,
) -> None:
    days = series.days.astype("datetime64[D]")[shown]
    thin = 0.6 if days.size > MANY else 1.0
    axes.plot(
        days,
        series.truth[position, shown],
        "o",
        markersize=1.9 * thin,
        color=REFERENCE_COLOUR,
        markeredgewidth=0,
        label="reference",
        zorder=4,
    )
    for name, colour in palette.items():
        values = series.estimates[name][position, shown]
        judged = name == subject
        axes.plot(
            days,
            values,
            color=colour,
            linewidth=thin * (1.1 if judged else 0.6),
            label=label(name),
            zorder=5 if judged else 3,
            alpha=1.0 if judged else 0.8,
        )
    line = series.table.iloc[position]
    title = f"{line['group']}, {line['compared']}"
    axes.set_title(title, loc="left", fontsize=SMALL, fontweight="bold", pad=2)
    tidy(axes)
    axes.tick_params(labelsize=SMALL)
    axes.margins(y=0.08)
