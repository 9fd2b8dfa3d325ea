"""The sections on results: in brief, by depth, and their spread over cells."""

import pandas as pd
import xarray as xr

from deepprofile.evaluation.figures.plots import depth_groups, violins
from deepprofile.evaluation.figures.style import label
from deepprofile.evaluation.reference.depths import COLUMN_GROUP, DEPTH_GROUPS
from deepprofile.evaluation.report import findings
from deepprofile.evaluation.report.blocks import Section, picture, plain_table, results_table
from deepprofile.evaluation.report.inputs import ReportInputs, absent
from deepprofile.evaluation.skill.summaries import MIN_CELLS, summarise

REFERENCES = {"truth": "the known truth", "stations": "stations"}
"""What a reference is called in a sentence, the most telling one first."""
TRAINING, VALIDATION = "train", "validation"
"""Values of ``split``: cells whose samples trained the model, and cells kept for validation."""
SURFACE_GROUP = DEPTH_GROUPS[0].name


def brief(inputs: ReportInputs) -> Section:
    """The main findings: the column and the surface, and what to be careful with."""
    section = Section("brief", "In brief")
    parts = {name: rows for name, rows in _validated(inputs).items() if not rows.empty}
    for reference in list(parts)[:1]:
        _add_main_results(section, inputs, reference, parts[reference])
    if inputs.collocation is not None:
        section.points.append(_validity(inputs.collocation, inputs.land))
    if not section.points:
        section.missing.append(absent(inputs, "metrics", "Findings"))
    return section


def results(inputs: ReportInputs) -> list[Section]:
    """For each reference: medians, depths at which others are better, training and validation."""
    parts = _validated(inputs)
    if not parts:
        missing = [absent(inputs, "metrics", "The table of results")]
        return [Section("results", "Results by depth", missing=missing)]
    return [_results(inputs, reference, rows) for reference, rows in parts.items()]


def distributions(inputs: ReportInputs) -> Section:
    """Violins of R and ubRMSE by depth group, for each reference."""
    section = Section("distributions", "Spread over cells")
    parts = _validated(inputs)
    if not parts:
        section.missing.append(absent(inputs, "metrics", "The spread over cells"))
    for reference, rows in parts.items():
        if rows.empty:
            section.missing.append(_no_cells(reference))
            continue
        caption = f"R and ubRMSE against {_called(reference)}, validation cells. {_HOW_DRAWN}"
        section.pictures.append(picture(f"violins_{reference}", caption, violins(rows), "png"))
    return section


_HOW_COMPARED = (
    "Medians over validation cells, none of whose samples has trained the model. All "
    "estimates of a cell and depth are compared on the same days. R is Pearson's correlation, "
    "anomaly R that of departures from a 35-day moving mean, ubRMSE the root mean square "
    "difference after the bias is taken off; cells won is the share of cells in which an "
    "estimate has the highest R. The best value of each depth and column is bold on green. "
    "The value at 100 cm is the end point of the polynomial; the mean of 90-100 cm stands "
    "beside it where it was computed."
)
_HOW_DRAWN = (
    "Estimates stand side by side in each depth group and are compared on the same days; n is "
    "the number of cells. The width shows how many cells have a value (Gaussian kernel density); "
    "of 100 cells or more the outermost 1 % at each end are left out. The short line is the "
    "median of all cells. Fewer than ten cells are drawn as points."
)


def _results(inputs: ReportInputs, reference: str, rows: pd.DataFrame) -> Section:
    name = _called(reference)
    section = Section(f"results_{reference}", f"Results against {name}")
    if rows.empty:
        section.missing.append(_no_cells(reference))
        return section
    summary = summarise(rows, by=("reference", "group"))
    groups = depth_groups(summary)
    section.notes.append(_HOW_COMPARED)
    section.points.extend(findings.compare_depths(summary, inputs.subject))
    few = [group for group in groups if _few(summary, group)]
    caption = f"All estimates against {name}: medians over validation cells."
    if few:
        caption += f" Fewer than {MIN_CELLS} cells, so read with care: {', '.join(few)}."
    section.tables.append(results_table(summary, groups, caption))
    gap = findings.validation_gap(_trained(inputs, reference), summary, inputs.subject)
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
    summary = summarise(rows, by=("reference", "group"))
    subject, name = label(inputs.subject), _called(reference)
    gap = findings.validation_gap(_trained(inputs, reference), summary, inputs.subject)
    section.points.extend(
        f"{COLUMN_GROUP}, against {name}: median R of {subject} is {row['r_validation']:.3f} on "
        f"{row['cells_validation']} validation and {row['r_training']:.3f} on "
        f"{row['cells_training']} training cells."
        for row in gap.to_dict("records")
        if row["group"] == COLUMN_GROUP
    )
    behind = findings.depths_behind(summary, inputs.subject)
    section.points.append(
        f"Against {name}, another estimate has a higher median R or a lower median ubRMSE than "
        f"{subject} at: {', '.join(behind) or 'no depth'}."
    )
    groups = [group for group in (COLUMN_GROUP, SURFACE_GROUP) if (summary["group"] == group).any()]
    caption = f"The whole column and the surface against {name}: medians over validation cells."
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


def _validated(inputs: ReportInputs) -> dict[str, pd.DataFrame]:
    """Rows on validation cells of each reference, the most telling one first; may be empty."""
    if inputs.metrics is None:
        return {}
    found = [str(name) for name in inputs.metrics["reference"].unique()]
    ordered = sorted(found, key=lambda name: (*REFERENCES, *found).index(name))
    return {name: _rows(inputs.metrics, name, VALIDATION) for name in ordered}


def _trained(inputs: ReportInputs, reference: str) -> pd.DataFrame:
    """Summary of a reference over training cells; empty where there is none."""
    if inputs.metrics is None:
        return pd.DataFrame()
    return summarise(_rows(inputs.metrics, reference, TRAINING), by=("reference", "group"))


def _rows(metrics: pd.DataFrame, reference: str, split: str) -> pd.DataFrame:
    return metrics[(metrics["reference"] == reference) & (metrics["split"] == split)]


def _no_cells(reference: str) -> str:
    return (
        f"Results against {_called(reference)}: not available because no validation cell is "
        "among the compared ones."
    )


def _few(summary: pd.DataFrame, group: str) -> bool:
    return bool(summary.loc[summary["group"] == group, "few_cells"].any())


def _called(reference: str) -> str:
    return REFERENCES.get(reference, reference)
