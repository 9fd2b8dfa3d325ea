"""Figures of experiments: loss by number of training cells; losses, coefficients and skill by λ."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepprofile.evaluation.figures.style import heading, new_figure, tidy
from deepprofile.evaluation.reference.depths import GROUP_NAMES
from deepprofile.experiments.results import Results, main_n

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
RAMP = matplotlib.colormaps["viridis"]
"""For what has an order: depths, λ."""


def training_size(results: Results) -> Figure:
    """Loss at the end by number of training cells, and by epoch for each number."""
    figure = new_figure(10, 4)
    final, course = figure.subplots(1, 2)
    runs = results.runs
    cells = runs.groupby("training_cells")
    for position, (term, name) in enumerate(
        {"total": "total L", "root": "L_root", "surface": "L_surf"}.items()
    ):
        colour, mean = PALETTE[position], cells[term].mean()
        final.plot(mean.index, mean, "-", color=colour, label=name)
        final.plot(
            results.runs["training_cells"],
            results.runs[term],
            MARKERS[position],
            color=colour,
            ms=4,
        )
    final.set_yscale("log")
    final.set_xlabel("Training cells", fontsize=8)
    final.set_ylabel("Validation loss (m⁶ m⁻⁶)", fontsize=8)
    heading(final, "Averaged parameters; a point a run, lines their means")
    numbers = runs.set_index("run")["training_cells"]
    _courses(course, results.losses, numbers)
    for axes in (final, course):
        tidy(axes, grid="both")
        axes.legend(fontsize=8, frameon=False)
    return figure


def smoothness(results: Results) -> Figure:
    """Losses, penalty, coefficients and skill by depth, each by λ."""
    figure = new_figure(11, 8.6)
    (fit, penalty), (spread, depth) = figure.subplots(2, 2)
    order = _starts(results.runs)
    changes = _against_least(results.runs, ["root", "surface"])
    _by_lambda(fit, changes, order, {"root": "L_root", "surface": "L_surf"})
    fit.set_ylabel("Change of the validation loss (%)", fontsize=8)
    heading(fit, f"Fit to the products' layers, against λ = {results.runs['lambda'].min():g}")
    _by_lambda(penalty, results.runs, order, {"smoothness": "L_o"})
    penalty.set_yscale("log")
    penalty.set_ylabel("L_o = Σ i² mean β_i², before λ", fontsize=8)
    heading(penalty, "Size of the high-order terms")
    n = main_n(results.runs)
    _spreads(spread, results.coefficients[results.coefficients["n_coefficients"] == n], order)
    heading(spread, f"Coefficients of validation cells, n = {n}: median, 25-75 %, 5-95 %")
    _depths(depth, results.skill[results.skill["n_coefficients"] == n], order)
    for axes in (fit, penalty, depth):
        axes.set_xticks(range(len(order)), [_name(start) for start in order], fontsize=8)
        axes.set_xlabel("λ", fontsize=8)
    for axes in (fit, penalty, spread, depth):
        tidy(axes, grid="both")
    return figure


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "training_size": training_size,
    "smoothness": smoothness,
}
"""How results are drawn, by the name in an experiment's file."""
_Start = tuple[float, bool]
"""λ, and whether training starts from small heads."""


def _starts(table: pd.DataFrame) -> list[_Start]:
    """The values of λ in order, PyTorch's own start after the small heads of the same λ."""
    found = {(float(x), bool(small)) for x, small in zip(*_keys(table), strict=True)}
    return sorted(found, key=lambda start: (start[0], not start[1]))


def _keys(table: pd.DataFrame) -> tuple[Any, Any]:
    return table["lambda"], table["small_heads"]


def _name(start: _Start) -> str:
    digits, _, power = f"{start[0]:.1e}".partition("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    value = f"{digits.removesuffix('.0')}·10{raised}" if start[0] else "0"
    return value if start[1] else f"{value}\nPyTorch\nheads"


def _positions(table: pd.DataFrame, order: Sequence[_Start]) -> list[int]:
    return [order.index((float(x), bool(small))) for x, small in zip(*_keys(table), strict=True)]


def _against_least(runs: pd.DataFrame, terms: list[str]) -> pd.DataFrame:
    """Loss terms in percent above those of the least λ and the same n, from small heads."""
    least = runs[runs["small_heads"] & (runs["lambda"] == runs["lambda"].min())]
    base = least.groupby("n_coefficients")[terms].mean().reindex(runs["n_coefficients"])
    return runs.assign(**{term: 100 * (runs[term] / base[term].to_numpy() - 1) for term in terms})


def _by_lambda(
    axes: Axes, runs: pd.DataFrame, order: Sequence[_Start], terms: dict[str, str]
) -> None:
    styles = ("-", "--")
    for position, (n, table) in enumerate(runs.groupby("n_coefficients")):
        colour = PALETTE[position % len(PALETTE)]
        for style, (term, name) in zip(styles, terms.items(), strict=False):
            _line(axes, table, order, term, style, position, colour, f"{name}, n = {n}")
    axes.legend(fontsize=8, frameon=False, ncols=len(terms))


def _line(
    axes: Axes,
    table: pd.DataFrame,
    order: Sequence[_Start],
    column: str,
    style: str,
    position: int,
    colour: Any,
    text: str,
) -> None:
    """A line over λ, and an open mark for each run from PyTorch's own start."""
    marker = MARKERS[position % len(MARKERS)]
    small = table["small_heads"].to_numpy(bool)
    means = table[small].groupby(_positions(table[small], order))[column].mean()
    axes.plot(means.index, means, style, marker=marker, color=colour, label=text, ms=4)
    own = table[~small]
    axes.plot(_positions(own, order), own[column], marker, color=colour, mfc="none", ms=7)


def _spreads(axes: Axes, table: pd.DataFrame, order: Sequence[_Start]) -> None:
    width = 0.8 / len(order)
    quantiles = ["q05", "q25", "q50", "q75", "q95"]
    for position, start in enumerate(order):
        mine = (table["lambda"] == start[0]) & (table["small_heads"] == start[1])
        rows = table[mine].groupby("degree")[quantiles].mean()
        at = rows.index.to_numpy() - 0.4 + (position + 0.5) * width
        colour = RAMP(position / max(1, len(order)))
        axes.vlines(at, rows["q05"], rows["q95"], color=colour, linewidth=0.8)
        axes.vlines(at, rows["q25"], rows["q75"], color=colour, linewidth=3)
        text = _name(start).replace("\n", " ")
        axes.plot(at, rows["q50"], "_", color="black", ms=3)
        axes.plot([], [], "-", color=colour, linewidth=3, label=f"λ = {text}")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_xticks(sorted(table["degree"].unique()))
    axes.set_xlabel("Degree i of the coefficient", fontsize=8)
    axes.set_ylabel("β_i (m³ m⁻³ m⁻ⁱ)", fontsize=8)
    axes.legend(fontsize=7, frameon=False)


def _depths(axes: Axes, skill: pd.DataFrame, order: Sequence[_Start]) -> None:
    if skill.empty:
        axes.text(0.5, 0.5, "no reference in the validation cells", ha="center", fontsize=9)
        return
    reference = (
        "truth" if (skill["reference"] == "truth").any() else str(skill["reference"].iloc[0])
    )
    skill = skill[skill["reference"] == reference]
    groups = [name for name in GROUP_NAMES if name in set(skill["group"])]
    for position, group in enumerate(groups):
        table = skill[skill["group"] == group]
        colour = RAMP(position / max(1, len(groups)))
        text = f"{group} ({int(table['n_cells'].max())})"
        _line(axes, table, order, "r", "-", position, colour, text)
    axes.set_ylabel("Median R", fontsize=8)
    heading(axes, f"Skill by depth against {reference} (validation cells)")
    axes.legend(fontsize=7, frameon=False, ncols=2)


def _courses(axes: Axes, losses: pd.DataFrame, numbers: pd.Series) -> None:
    """Validation loss by epoch, the mean of the runs of each number of training cells."""
    table = losses[losses["split"] == "validation"].assign(
        training_cells=lambda rows: rows["run"].map(numbers)
    )
    sizes = sorted(table["training_cells"].unique())
    for position, size in enumerate(sizes):
        course = table[table["training_cells"] == size].groupby("epoch")["total"].mean()
        colour = RAMP(position / max(1, len(sizes)))
        axes.plot(course.index, course, "-", color=colour, label=f"{size} cells")
    axes.set_yscale("log")
    axes.set_xlabel("Epoch", fontsize=8)
    axes.set_ylabel("Validation loss (m⁶ m⁻⁶)", fontsize=8)
    heading(axes, "Course of training")
