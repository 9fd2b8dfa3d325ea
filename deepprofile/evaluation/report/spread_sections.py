"""The sections that show cells and days: spread over cells, density of days, series, maps."""

import numpy as np
import pandas as pd

from deepprofile.evaluation.figures.density import MAX_COLUMNS, density_scatter
from deepprofile.evaluation.figures.series import (
    MAX_DEPTHS,
    ExampleCell,
    drawn_estimates,
    drawn_series,
    example_cells,
    series_panels,
)
from deepprofile.evaluation.figures.station_maps import skill_maps
from deepprofile.evaluation.figures.style import label, subject_first
from deepprofile.evaluation.figures.violins import depth_groups, violins
from deepprofile.evaluation.reference.depths import COLUMN_GROUP
from deepprofile.evaluation.report.blocks import Section, picture
from deepprofile.evaluation.report.inputs import ReportInputs, absent
from deepprofile.evaluation.report.judged import (
    called,
    cells_judged,
    in_order,
    judged,
    judged_density,
    no_cells,
)
from deepprofile.evaluation.report.skill_table import CORE, EXTRA
from deepprofile.evaluation.skill.summaries import cell_means

SPREAD = ("r", "ubrmse", "bias", "anomaly_r")
ROWS = 6
"""Depth groups in one figure of densities."""
_HOW_DRAWN = (
    "Estimates stand side by side in each depth group and are compared on the same days; n is "
    "the number of cells with any estimate. The width shows how many cells have a value (Gaussian "
    "kernel density); of 100 cells or more the outermost 1 % at each end are left out. The short "
    "line is the median of all cells. Fewer than ten cells are drawn as points."
)


def distributions(inputs: ReportInputs) -> Section:
    """Violins of four metrics by depth group, for each reference, and for core and extra cells."""
    section = Section("distributions", "Spread over cells")
    parts = judged(inputs)
    if not parts:
        section.missing.extend(absent(inputs, "assessment", "The spread over cells"))
    for reference, rows in parts.items():
        if rows.empty:
            section.missing.append(no_cells(reference))
            continue
        metrics = [name for name in SPREAD if name in rows and rows[name].notna().any()]
        for side, part in _by_class(rows).items():
            which = f"{side} cells" if side else cells_judged(inputs)
            caption = (
                f"R, ubRMSE, bias and anomaly R against {called(reference)}, {which}. {_HOW_DRAWN}"
            )
            name = f"violins_{reference}" + (f"_{side}" if side else "")
            drawn = violins(part, metrics or SPREAD[:1], inputs.subject)
            section.pictures.append(picture(name, caption, drawn, "png"))
    return section


def _by_class(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Core and extra cells by themselves where there are both; else all under an empty name."""
    if "cell_class" not in rows:
        return {"": rows}
    sides = {side: rows[rows["cell_class"] == side] for side in (CORE, EXTRA)}
    if any(part.empty for part in sides.values()):
        return {"": rows}
    others = len(rows) > sum(map(len, sides.values()))
    return ({"": rows} if others else {}) | sides


def density(inputs: ReportInputs) -> Section:
    """Density scatter of the subject and the others against each reference."""
    section = Section("density", "Estimates against references, day by day")
    counts = judged_density(inputs)
    for reference in in_order(list(dict.fromkeys(name for name, _, _ in counts))):
        found = {key[1:]: value for key, value in counts.items() if key[0] == reference}
        estimates = subject_first((name for name, _ in found), inputs.subject)
        groups = depth_groups(pd.DataFrame({"group": [group for _, group in found]}))
        cells = _compared_cells(judged(inputs).get(reference, pd.DataFrame()))
        for start in range(0, len(groups), ROWS):
            rows = groups[start : start + ROWS]
            shown = {
                (estimate, group): found[estimate, group]
                for group in rows
                for estimate in estimates[:MAX_COLUMNS]
                if (estimate, group) in found
            }
            caption = _density_caption(reference, rows, estimates, cells_judged(inputs))
            name = f"density_{reference}_{start // ROWS + 1}"
            drawn = density_scatter(shown, cells)
            section.pictures.append(picture(name, caption, drawn, "png"))
    return section


def _density_caption(reference: str, groups: list[str], estimates: list[str], which: str) -> str:
    left_out = [label(name) for name in estimates[MAX_COLUMNS:]]
    caption = (
        f"Daily soil moisture of estimates (up) against {called(reference)} (across), "
        f"{groups[0]} to {groups[-1]}. Colour: number of days of all {which} in classes of "
        "0.01 m³ m⁻³, on a logarithmic scale that all panels share; white: none. The dashed line "
        "is 1:1; above each panel the number of days and cells. Days beyond 0 to 0.6 m³ m⁻³ are "
        "counted at the edge."
    )
    return caption + (f" Not drawn: {', '.join(left_out)}." if left_out else "")


def _compared_cells(rows: pd.DataFrame) -> dict[tuple[str, str], int]:
    if rows.empty:
        return {}
    cells = rows[rows["rmse"].notna()].drop_duplicates(["estimate", "group", "row", "column"])
    counts = cells.groupby(["estimate", "group"]).size().rename("n").reset_index()
    keys = zip(counts["estimate"], counts["group"], strict=True)
    return dict(zip(keys, counts["n"].tolist(), strict=True))


def series(inputs: ReportInputs) -> Section:
    """Series of a reference and estimates in some cells at several depths."""
    section = Section("series", "Time series of example cells")
    kept = inputs.assessment.series if inputs.assessment else None
    if kept is None or kept.table.empty:
        return section
    parts = {name: rows for name, rows in judged(inputs).items() if not rows.empty}
    there = [name for name in parts if (kept.table["reference"] == name).any()]
    for reference in there[-1:]:
        cells = example_cells(parts[reference], kept, inputs.subject)
        for number, cell in enumerate(cells, 1):
            positions = drawn_series(kept, reference, cell)
            if not positions.size:
                continue
            caption = _series_caption(inputs, reference, cell, kept.step)
            drawn = series_panels(kept, positions, inputs.subject)
            section.pictures.append(picture(f"series_{reference}_{number}", caption, drawn, "png"))
    return section


def _series_caption(inputs: ReportInputs, reference: str, cell: ExampleCell, step: int) -> str:
    assert inputs.assessment is not None and inputs.assessment.series is not None
    names = list(inputs.assessment.series.estimates)
    drawn = drawn_estimates(names, inputs.subject)
    left_out = [label(name) for name in names if name not in drawn]
    span = "daily values" if step == 1 else f"means over {step} days"
    text = (
        f"Cell in row {cell.row}, column {cell.column}: the one with {_reason(cell.why)} "
        f"(median R of {label(inputs.subject)} over its depths: {cell.r:.3f}). Points: "
        f"{called(reference)}; lines: estimates; {span}, at most {MAX_DEPTHS} depths. Cells are "
        "chosen by rule: best, middle and lowest median R, and most depths; of equal ones the "
        "first by row and column."
    )
    return text + (f" Not drawn: {', '.join(left_out)}." if left_out else "")


def _reason(why: str) -> str:
    words = {"best": "the best skill", "middle": "the middle skill", "lowest": "the lowest skill"}
    return " and ".join(words.get(part, part) for part in why.split(" and "))


def skill_on_maps(inputs: ReportInputs) -> Section:
    """R, ubRMSE and bias of the subject at the cells."""
    section = Section("skill_maps", "Skill on maps")
    for reference, rows in judged(inputs).items():
        own = rows[(rows["estimate"] == inputs.subject) & rows["r"].notna()]
        if own.empty:
            continue
        group = map_group(own)
        cells = cell_means(own[own["group"] == group], ["group"])
        land = " Grey: land." if inputs.land is not None else ""
        caption = (
            f"R, ubRMSE and bias of {label(inputs.subject)} against {called(reference)}, {group}, "
            f"{len(cells)} {cells_judged(inputs)}. Axes are the plane of the EASE-2 grid "
            "(EPSG:6933), labels give degrees. Colours reach from the 2nd to the 98th percentile; "
            f"those of the bias are even about zero, blue where the estimate is wetter.{land}"
        )
        drawn = skill_maps(cells, inputs.land)
        section.pictures.append(picture(f"map_{reference}", caption, drawn, "svg"))
    return section


def map_group(rows: pd.DataFrame) -> str:
    """The whole column where it is there, else the depth group with most cells."""
    counts = rows.drop_duplicates(["group", "row", "column"])["group"].value_counts(sort=False)
    if COLUMN_GROUP in counts.index:
        return COLUMN_GROUP
    return str(counts.index[int(np.argmax(counts.to_numpy()))])
