"""The sections on results: in brief, and by depth as tables."""

import pandas as pd
import xarray as xr

from deepprofile.evaluation.figures.style import label
from deepprofile.evaluation.figures.violins import depth_groups
from deepprofile.evaluation.reference.depths import COLUMN_GROUP, DEPTH_GROUPS
from deepprofile.evaluation.report import findings
from deepprofile.evaluation.report.blocks import Section, plain_table, results_table
from deepprofile.evaluation.report.inputs import ReportInputs, absent
from deepprofile.evaluation.report.judged import (
    called,
    cells_judged,
    held_out,
    judged,
    no_cells,
    trained,
)
from deepprofile.evaluation.report.skill_table import has_classes, skill_table
from deepprofile.evaluation.skill.summaries import summarise

SURFACE_GROUP = DEPTH_GROUPS[0].name


def brief(inputs: ReportInputs) -> Section:
    """The main findings: the column and the surface, and what to be careful with."""
    section = Section("brief", "In brief")
    parts = {name: rows for name, rows in judged(inputs).items() if not rows.empty}
    for reference in list(parts)[:1]:
        _add_main_results(section, inputs, reference, parts[reference])
    if inputs.collocation is not None:
        section.points.append(_validity(inputs.collocation, inputs.land))
    if not section.points:
        section.missing.extend(absent(inputs, "assessment", "Findings"))
    return section


def results(inputs: ReportInputs) -> list[Section]:
    """For each reference: medians, depths at which others are better, training and validation."""
    parts = judged(inputs)
    if not parts:
        missing = absent(inputs, "assessment", "The table of results")
        return [Section("results", "Results by depth", missing=missing)]
    return [_results(inputs, reference, rows) for reference, rows in parts.items()]


_HOW_COMPARED = (
    "All estimates with metrics in a cell and depth are compared on the same days; some estimates "
    "may lack cells. At each depth those with as many cells as any other are ranked, and the best "
    "value of a column is bold on green; bias is not ranked, since an estimate made of the "
    "stations' own past has none by construction. R is Pearson's correlation, "
    "anomaly R that of departures from a 35-day moving mean, ubRMSE the root mean square "
    "difference after the bias is taken off; cells won is the share of an estimate's cells in "
    "which its R is the highest. "
    "Sensors at 100 cm are compared at that depth, where a profile ends, and once more with the "
    "mean of 90-100 cm."
)


def _results(inputs: ReportInputs, reference: str, rows: pd.DataFrame) -> Section:
    name = called(reference)
    section = Section(f"results_{reference}", f"Results against {name}")
    if rows.empty:
        section.missing.append(no_cells(reference))
        return section
    summary = _summary(inputs, rows)
    groups = depth_groups(summary)
    section.notes.append(f"{_which_cells(inputs)} {_HOW_COMPARED}")
    section.points.extend(findings.compare_depths(summary, inputs.subject))
    caption = f"All estimates against {name}: medians over {cells_judged(inputs)}."
    caption += findings.few_cells(summary, summary["group"].tolist(), inputs.min_cells)
    section.tables.append(results_table(summary, groups, caption))
    if has_classes(rows):
        section.tables.append(skill_table(rows, groups, f"Core and extra cells against {name}."))
    gap = _gap(inputs, reference, summary)
    if not gap.empty:
        caption = (
            f"{label(inputs.subject)} against {name} on training and on validation cells: medians, "
            "and the difference validation minus training."
        )
        section.tables.append(plain_table(gap, caption, _GAP_HEADS, digits=4))
    return section


_GAP_HEADS = {
    "group": "Depth",
    "cells_training": "Cells, training",
    "cells_validation": "Cells, validation",
    "r_training": "R, training",
    "r_validation": "R, validation",
    "r_difference": "R, difference",
    "ubrmse_training": "ubRMSE, training (m³\N{NO-BREAK SPACE}m⁻³)",
    "ubrmse_validation": "ubRMSE, validation (m³\N{NO-BREAK SPACE}m⁻³)",
    "ubrmse_difference": "ubRMSE, difference (m³\N{NO-BREAK SPACE}m⁻³)",
}


def _add_main_results(
    section: Section, inputs: ReportInputs, reference: str, rows: pd.DataFrame
) -> None:
    """The column and the surface as a table; training against validation; depths not led."""
    summary = _summary(inputs, rows)
    subject, name = label(inputs.subject), called(reference)
    gap = _gap(inputs, reference, summary)
    section.points.extend(
        f"{COLUMN_GROUP}, against {name}: median R of {subject} is {row['r_validation']:.3f} on "
        f"{row['cells_validation']} validation and {row['r_training']:.3f} on "
        f"{row['cells_training']} training cells."
        for row in gap.to_dict("records")
        if row["group"] == COLUMN_GROUP
    )
    if compared := findings.depths_judged(summary, inputs.subject):
        behind = findings.depths_behind(summary, inputs.subject)
        section.points.append(
            f"Against {name}, another estimate has a higher median R or a lower median ubRMSE than "
            f"{subject} at: {', '.join(behind) or 'no depth'} (of {len(compared)} at which it is "
            "ranked with others)."
        )
    section.points.extend(findings.not_ranked(summary, inputs.subject))
    groups = [group for group in (COLUMN_GROUP, SURFACE_GROUP) if (summary["group"] == group).any()]
    caption = (
        f"The whole column and the surface against {name}: medians over {cells_judged(inputs)}."
    )
    names = ("n_cells", "r", "ubrmse", "share_won")
    section.tables.append(results_table(summary, groups, caption, names))


def _validity(collocation: xr.Dataset, land: xr.DataArray | None) -> str:
    """Share of cells without a valid collocation and the median weights of the valid ones."""
    shares = findings.invalid_reasons(collocation, land)
    cells = int(shares["cells"].sum())
    invalid = cells - int(shares.loc[shares["state"] == "valid", "cells"].sum())
    weights = findings.weight_summary(collocation, land)
    medians = ", ".join(f"{row.product} {row.median:.3f}" for row in weights.itertuples())
    return (
        f"Triple collocation is not valid in {invalid} of {cells} cells "
        f"({100 * invalid / max(cells, 1):.1f} %); median weights of the valid ones: {medians}."
    )


def _gap(inputs: ReportInputs, reference: str, summary: pd.DataFrame) -> pd.DataFrame:
    """Training against validation cells; empty without training cells."""
    rows = trained(inputs, reference)
    if rows.empty:
        return pd.DataFrame()
    training = _summary(inputs, rows)
    return findings.validation_gap(training, summary, inputs.subject)


def _which_cells(inputs: ReportInputs) -> str:
    kept = ", none of whose samples has trained the model" if held_out(inputs) else ""
    return f"Medians over {cells_judged(inputs)}{kept}."


def _summary(inputs: ReportInputs, rows: pd.DataFrame) -> pd.DataFrame:
    return summarise(rows, by=("reference", "group"), min_cells=inputs.min_cells)
