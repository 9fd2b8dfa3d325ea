"""The sections on results: in brief, by depth, and their spread over cells."""

import pandas as pd
import xarray as xr

from deepprofile.evaluation import findings
from deepprofile.evaluation.blocks import Section, Table, picture, plain_table, results_table
from deepprofile.evaluation.depths import COLUMN_GROUP, DEPTH_GROUPS
from deepprofile.evaluation.figures import depth_groups, violins
from deepprofile.evaluation.inputs import ReportInputs, absent
from deepprofile.evaluation.style import label
from deepprofile.evaluation.tables import MIN_CELLS, SHARES, summarise

REFERENCES = {"truth": "the known truth", "stations": "stations"}
"""What a reference is called in a sentence, the most telling one first."""
TRAINING = "train"
"""Value of ``split`` for cells whose samples trained the model; all others are held out."""
SURFACE_GROUP = DEPTH_GROUPS[0].name


def brief(inputs: ReportInputs) -> Section:
    """The main findings: the column and the surface, and what to be careful with."""
    section = Section("brief", "In brief")
    parts = _held_out(inputs)
    for reference in list(parts)[:1]:
        _add_main_results(section, inputs, reference, parts[reference])
    if inputs.collocation is not None:
        section.points.append(_validity(inputs.collocation, inputs.land))
    if not section.points:
        section.missing.append(absent(inputs, "metrics", "Findings"))
    return section


def results(inputs: ReportInputs) -> list[Section]:
    """For each reference: medians, depths at which others are better, training and held-out."""
    parts = _held_out(inputs)
    if not parts:
        missing = [absent(inputs, "metrics", "The table of results")]
        return [Section("results", "Results by depth", missing=missing)]
    return [_results(inputs, reference, rows) for reference, rows in parts.items()]


def distributions(inputs: ReportInputs) -> Section:
    """Violins of R and ubRMSE by depth group, for each reference."""
    section = Section("distributions", "Spread over cells")
    parts = _held_out(inputs)
    if not parts:
        section.missing.append(absent(inputs, "metrics", "The spread over cells"))
    for reference, rows in parts.items():
        caption = f"R and ubRMSE against {_called(reference)}, held-out cells. {_HOW_DRAWN}"
        section.pictures.append(picture(f"violins_{reference}", caption, violins(rows), "png"))
    return section


_HOW_COMPARED = (
    "Medians over held-out cells, whose samples have not trained the model. All estimates of a "
    "cell and depth are compared on the same days. R is Pearson's correlation, anomaly R that of "
    "departures from a 35-day moving mean, ubRMSE the root mean square difference after the bias "
    "is taken off; cells won is the share of cells in which an estimate has the highest R. The "
    "best value of each depth and column is bold on green. The value at 100 cm is the end point "
    "of the polynomial; the mean of 90-100 cm stands beside it where it was computed."
)
_HOW_DRAWN = (
    "Estimates stand side by side in each depth group and are compared on the same days; n is "
    "the number of cells. The width shows how many cells have a value (Gaussian kernel density); "
    "of 100 cells or more the outermost 1 % at each end are left out. The short line is the "
    "median of all cells. Fewer than ten cells are drawn as points."
)


def _results(inputs: ReportInputs, reference: str, rows: pd.DataFrame) -> Section:
    summary = summarise(rows, by=("reference", "group"))
    groups, name = depth_groups(summary), _called(reference)
    section = Section(f"results_{reference}", f"Results against {name}", notes=[_HOW_COMPARED])
    section.points.extend(findings.compare_depths(summary, inputs.subject))
    few = [group for group in groups if _few(summary, group)]
    caption = f"All estimates against {name}: medians over held-out cells."
    if few:
        caption += f" Fewer than {MIN_CELLS} cells, so read with care: {', '.join(few)}."
    section.tables.append(results_table(summary, groups, caption))
    gap = findings.held_out_gap(_trained(inputs, reference), summary, inputs.subject)
    if not gap.empty:
        caption = (
            f"{label(inputs.subject)} against {name} on training and on held-out cells: medians, "
            "and the difference held-out minus training."
        )
        section.tables.append(plain_table(gap, caption, _GAP_HEADS, digits=4))
    section.tables.append(_impossible(summary, inputs.subject, name))
    return section


_GAP_HEADS = {
    "group": "Depth",
    "cells_training": "Cells, training",
    "cells_held_out": "Cells, held-out",
    "r_training": "R, training",
    "r_held_out": "R, held-out",
    "r_difference": "R, difference",
    "ubrmse_training": "ubRMSE, training (m³\N{NO-BREAK SPACE}m⁻³)",
    "ubrmse_held_out": "ubRMSE, held-out (m³\N{NO-BREAK SPACE}m⁻³)",
    "ubrmse_difference": "ubRMSE, difference (m³\N{NO-BREAK SPACE}m⁻³)",
}


def _add_main_results(
    section: Section, inputs: ReportInputs, reference: str, rows: pd.DataFrame
) -> None:
    """The column and the surface as a table; training against held-out; depths not led."""
    summary = summarise(rows, by=("reference", "group"))
    subject, name = label(inputs.subject), _called(reference)
    gap = findings.held_out_gap(_trained(inputs, reference), summary, inputs.subject)
    section.points.extend(
        f"{COLUMN_GROUP}, against {name}: median R of {subject} is {row['r_held_out']:.3f} on "
        f"{row['cells_held_out']} held-out and {row['r_training']:.3f} on "
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
    caption = f"The whole column and the surface against {name}: medians over held-out cells."
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


def _impossible(summary: pd.DataFrame, subject: str, reference: str) -> Table:
    """Shares of the subject's values below 0 and above 0.6 m³ m⁻³, by depth group."""
    rows = summary.loc[summary["estimate"] == subject, ["group", *SHARES]]
    percent = rows.assign(**{share: 100 * rows[share] for share in SHARES})
    caption = (
        f"Impossible values of {label(subject)} on the days compared with {reference}: mean "
        "share over held-out cells."
    )
    heads = {"group": "Depth", SHARES[0]: "Below 0 (%)", SHARES[1]: "Above 0.6 m³ m⁻³ (%)"}
    return plain_table(percent, caption, heads, digits=2)


def _held_out(inputs: ReportInputs) -> dict[str, pd.DataFrame]:
    """Rows on held-out cells of each reference that has any."""
    if inputs.metrics is None:
        return {}
    rows = inputs.metrics[inputs.metrics["split"] != TRAINING]
    found = dict(list(rows.groupby("reference", sort=False)))
    known = [name for name in REFERENCES if name in found]
    return {str(name): found[name] for name in dict.fromkeys([*known, *found])}


def _trained(inputs: ReportInputs, reference: str) -> pd.DataFrame:
    """Summary of a reference over training cells; empty where there is none."""
    if inputs.metrics is None:
        return pd.DataFrame()
    metrics = inputs.metrics
    rows = metrics[(metrics["reference"] == reference) & (metrics["split"] == TRAINING)]
    return summarise(rows, by=("reference", "group"))


def _few(summary: pd.DataFrame, group: str) -> bool:
    return bool(summary.loc[summary["group"] == group, "few_cells"].any())


def _called(reference: str) -> str:
    return REFERENCES.get(reference, reference)
