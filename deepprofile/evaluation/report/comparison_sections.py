"""The sections that compare: classes of cells, pairs of estimates, an estimate with products."""

import pandas as pd

from deepprofile.evaluation.figures.classes import (
    CLASS_COLUMNS,
    SIGNIFICANT,
    ClassPanel,
    class_boxes,
    letters,
    pages,
    without_box,
)
from deepprofile.evaluation.figures.intercomparison import (
    METRICS,
    layer_maps,
    layer_medians,
    layer_name,
)
from deepprofile.evaluation.figures.pairs import MAX_OTHERS, paired_shares
from deepprofile.evaluation.figures.style import METRIC_LABELS, in_words, label
from deepprofile.evaluation.reference.depths import COLUMN_GROUP, DEPTH_GROUPS
from deepprofile.evaluation.report.blocks import Section, Table, picture, plain_table
from deepprofile.evaluation.report.findings import few_cells
from deepprofile.evaluation.report.inputs import ReportInputs
from deepprofile.evaluation.report.judged import (
    NO_CELLS,
    called,
    cells_judged,
    cells_of,
    counted_lines,
    in_order,
    judged,
    judged_lines,
)
from deepprofile.evaluation.skill.intercomparison import medians
from deepprofile.evaluation.skill.overview import class_tests, known_classes
from deepprofile.evaluation.skill.pairs import summarise_pairs
from deepprofile.evaluation.skill.strata import class_sizes
from deepprofile.evaluation.skill.summaries import cell_means, class_names

CLASS_METRICS = ("r", "ubrmse")
CLASS_GROUPS = (DEPTH_GROUPS[0].name, COLUMN_GROUP)
"""The surface and the column: depths at which classes are compared."""
LAYER_METRICS = ("rmsd", "r", "bias")


def classes(inputs: ReportInputs) -> Section:
    """Boxes of R and ubRMSE by class, with letters of significance and a table of tests."""
    section = Section("classes", "Classes of cells")
    parts = judged(inputs)
    every = _class_tests(inputs) if parts else pd.DataFrame()
    for reference, rows in parts.items():
        by = known_classes(rows)
        rows = rows[rows["group"].isin(CLASS_GROUPS)]
        if not by or rows.empty:
            continue
        tests = every[every["reference"] == reference]
        for number, group in enumerate(CLASS_GROUPS):
            _add_classes(section, inputs, rows[rows["group"] == group], tests, by, number)
        _add_tests(section, inputs, reference, tests)
    return section


def _class_tests(inputs: ReportInputs) -> pd.DataFrame:
    """Tests of the cells and depths that are drawn, out of the one family of all tests."""
    assert inputs.assessment is not None
    metrics = inputs.assessment.metrics
    tests = counted_lines(class_tests(metrics, inputs.min_cells), metrics)
    shown = tests["group"].isin(CLASS_GROUPS) & tests["metric"].isin(CLASS_METRICS)
    return tests[shown & (tests["estimate"] == inputs.subject)]


def _add_classes(
    section: Section,
    inputs: ReportInputs,
    rows: pd.DataFrame,
    tests: pd.DataFrame,
    by: list[str],
    number: int,
) -> None:
    if rows.empty:
        return
    reference, group = str(rows["reference"].iloc[0]), str(rows["group"].iloc[0])
    own = tests[tests["group"] == group]
    known = rows[rows["r"].notna()]
    panels, left_out = [], []
    for name in by:
        sizes = class_sizes(known, name, min_cells=inputs.min_cells)
        few = sizes[~sizes["used"]]
        left_out += [
            f"{in_words(str(one))} ({n})"
            for one, n in zip(few["class"], few["n_cells"], strict=True)
        ]
        named = rows.assign(**{"class": class_names(rows[name])})
        used = dict(zip(*(sizes.loc[sizes["used"], c].tolist() for c in ("class", "n_cells")),
                        strict=True))  # fmt: skip
        part = own[own["by"] == name]
        signs = {m: _letters(part[part["metric"] == m], list(used)) for m in CLASS_METRICS}
        panels.append(ClassPanel(name, cell_means(named, ["class", "estimate"]), used, signs))
    small = "; ".join(left_out) or "none"
    text = (
        f"Left out at {group}, because they have fewer than {inputs.min_cells} cells or are not "
        f"known (number of cells): {small}."
    )
    for page, chosen in enumerate(pages(panels), 1):
        caption = (
            f"R and ubRMSE against {called(reference)} by class, {group}, {cells_judged(inputs)}. "
            "Boxes reach from the lower to the upper quartile over cells, whiskers from the 5th to "
            "the 95th percentile; the line is the median, n the number of cells with any estimate. "
            f"Classes of {label(inputs.subject)} that share no letter differ (Student's t-test, p "
            f"below {SIGNIFICANT:g} after Benjamini and Hochberg over all tests of the "
            f"table class_tests). {text}{_no_boxes(chosen, inputs.min_cells)}"
        )
        name = f"classes_{reference}_{number + 1}_{page}"
        drawn = class_boxes(chosen, CLASS_METRICS, inputs.subject, min_cells=inputs.min_cells)
        section.pictures.append(picture(name, caption, drawn, "svg"))
    if not any(panel.sizes for panel in panels):
        section.notes.append(f"Against {called(reference)} no class is large enough. {text}")


def _no_boxes(panels: list[ClassPanel], min_cells: int) -> str:
    """Sentence naming the estimates without a box in a class; empty for none."""
    places: dict[str, list[str]] = {}
    for panel in panels:
        for estimate, few in without_box(panel, CLASS_METRICS, min_cells).items():
            for name, metrics in few.items():
                some = [METRIC_LABELS[metric].split(" (")[0] for metric in metrics]
                which = f" ({', '.join(some)})" if len(some) < len(CLASS_METRICS) else ""
                places.setdefault(estimate, []).append(in_words(name) + which)
    told = "; ".join(f"{label(name)} in {', '.join(found)}" for name, found in places.items())
    return f" No box, because of fewer than {min_cells} cells with a value: {told}." if told else ""


def _letters(tests: pd.DataFrame, names: list[str]) -> dict[str, str]:
    """Letters of the classes that were tested."""
    tested = {*tests["class_a"], *tests["class_b"]}
    return letters(tests, [name for name in names if name in tested])


def _add_tests(section: Section, inputs: ReportInputs, reference: str, tests: pd.DataFrame) -> None:
    """Pairs of classes in which the subject differs."""
    own = tests[tests["p_adjusted"].notna()]
    if own.empty:
        return
    differ = own[own["p_adjusted"] < SIGNIFICANT].sort_values("p_adjusted", kind="stable")
    section.points.append(
        f"{label(inputs.subject)} against {called(reference)}: {len(differ)} of {len(own)} pairs "
        f"of classes differ, with p below {SIGNIFICANT:g} after correction."
    )
    if differ.empty:
        return
    columns = ["group", "by", "metric", "class_a", "class_b", "n_a", "n_b", "mean_a", "mean_b"]
    table = differ[[*columns, "t", "p_adjusted"]].copy()
    table["metric"] = table["metric"].map(METRIC_LABELS)
    table["by"] = table["by"].map(CLASS_COLUMNS)
    caption = f"Classes in which {label(inputs.subject)} differs against {called(reference)}."
    section.tables.append(plain_table(table, caption, _TEST_HEADS))


_TEST_HEADS = {
    "group": "Depth",
    "by": "Classes by",
    "class_a": "Class A",
    "class_b": "Class B",
    "n_a": "Cells of A",
    "n_b": "Cells of B",
    "mean_a": "Mean of A",
    "mean_b": "Mean of B",
    "t": "t",
    "p_adjusted": "p, adjusted",
}


def pairs(inputs: ReportInputs) -> Section:
    """Shares of cells in which the subject is better and worse than each other estimate."""
    section = Section("pairs", "Paired comparison")
    table = inputs.assessment.pairs if inputs.assessment else pd.DataFrame()
    references = [] if table.empty else [str(name) for name in table["reference"].unique()]
    for reference in in_order(references):
        rows = judged_lines(table, reference)
        rows = rows[rows["subject"] == inputs.subject]
        if rows.empty:
            continue
        summary = summarise_pairs(rows, min_cells=inputs.min_cells)
        others = list(dict.fromkeys(summary["other"]))
        for start in range(0, len(others), MAX_OTHERS):
            drawn = paired_shares(summary, others[start : start + MAX_OTHERS], inputs.subject)
            caption = _pairs_caption(inputs, reference)
            name = f"pairs_{reference}_{start // MAX_OTHERS + 1}"
            section.pictures.append(picture(name, caption, drawn, "svg"))
        section.tables.append(_pairs_table(inputs, summary, reference))
    return section


def _pairs_caption(inputs: ReportInputs, reference: str) -> str:
    subject = label(inputs.subject)
    return (
        f"{subject} against each other estimate on common days, compared with "
        f"{called(reference)}. Bars: share of the {cells_judged(inputs)} in which it is better, "
        "worse or neither beyond the confidence limits of the difference (moving-block bootstrap); "
        "at their end the number of cells with limits. Points: median over cells of the difference "
        f"({subject} minus the other) with its quartiles; R is better above zero, ubRMSE below."
    )


def _pairs_table(inputs: ReportInputs, summary: pd.DataFrame, reference: str) -> Table:
    shown = pd.DataFrame({"Depth": summary["group"], "Against": summary["other"].map(label)})
    shown["Cells"] = summary["n_cells"]
    digits = {}
    for metric, unit in (("R", ""), ("ubRMSE", " (m³\N{NO-BREAK SPACE}m⁻³)")):
        key = metric.lower()
        difference, places = f"{key}_difference", 4 if unit else 3
        shown[f"Difference of {metric}{unit}"] = summary[difference]
        shown[f"Quartiles of {metric}"] = [
            "–" if pd.isna(low) else f"{low:.{places}f} to {high:.{places}f}"
            for low, high in zip(
                summary[f"{difference}_q25"], summary[f"{difference}_q75"], strict=True
            )
        ]
        shown[f"Judged by {metric}"] = summary[f"{key}_cells_judged"]
        shown[f"Better by {metric} (%)"] = 100 * summary[f"{key}_better"]
        shown[f"Worse by {metric} (%)"] = 100 * summary[f"{key}_worse"]
        digits[f"Difference of {metric}{unit}"] = places
        digits |= {f"{word} by {metric} (%)": 0 for word in ("Better", "Worse")}
    caption = (
        f"{label(inputs.subject)} against each other estimate, compared with {called(reference)}: "
        "median differences over cells, quartiles, and shares of the cells that have limits."
    )
    lines = zip(summary["other"].map(label), summary["group"], strict=True)
    names = [f"{other} at {group}" for other, group in lines]
    caption += few_cells(summary, names, inputs.min_cells)
    heads = {str(name): str(name) for name in shown.columns}
    return plain_table(shown, caption, heads, digits)


def products(inputs: ReportInputs) -> Section:
    """Differences between estimates and each layer of the products."""
    section = Section("products", "Compared with the products")
    table = inputs.assessment.intercomparison if inputs.assessment else pd.DataFrame()
    if table.empty:
        return section
    counted, cells = counted_lines(table), cells_of(table)
    if counted.empty:
        section.missing.append(f"Differences to the products: not available because {NO_CELLS}.")
    for estimate, rows in counted.groupby("estimate", sort=False):
        summary = medians(rows, inputs.min_cells)
        text = (
            f"{label(str(estimate))} and each layer of the products in {cells}, each layer on its "
            "own common days with the estimate. "
            "Neither is a reference: a difference says that they disagree. Bias is "
            f"{label(str(estimate))} minus the product."
        )
        for metric in LAYER_METRICS:
            if rows[metric].notna().any():
                caption = f"{METRIC_LABELS[metric].split(' (')[0]} of {text}"
                drawn = layer_maps(rows, metric, inputs.land)
                name = f"products_{estimate}_{metric}"
                section.pictures.append(picture(name, caption, drawn, "svg"))
        caption = f"Medians over {cells}, with quartiles in brackets. {text}"
        drawn = layer_medians(summary)
        section.pictures.append(picture(f"products_{estimate}_medians", caption, drawn, "svg"))
        keys = summary[["product", "top", "bottom"]].itertuples(index=False, name=None)
        shown = summary[["n_cells", *METRICS]]
        names = [layer_name(*key) for key in keys]
        shown.insert(0, "layer", names)
        heads = {"n_cells": "Cells"} | {name: METRIC_LABELS[name] for name in METRICS}
        digits = {name: 3 if name == "r" else 4 for name in METRICS}
        caption = f"Medians over {cells}. {text}" + few_cells(summary, names, inputs.min_cells)
        section.tables.append(plain_table(shown, caption, heads, digits))
    return section
