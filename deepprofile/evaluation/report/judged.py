"""Which lines of the table of metrics a report judges by, and what references are called."""

import pandas as pd

from deepprofile.evaluation.assessment import Counts
from deepprofile.evaluation.reference.ground_truth import UNQUALIFIED
from deepprofile.evaluation.report.inputs import ReportInputs

REFERENCES = {"truth": "the known truth", "stations": "stations"}
"""What a reference is called in a sentence, the most telling one first."""
TRAINING, VALIDATION, QUALIFIED = "train", "validation", "qualified"
"""Values of ``split``: cells whose samples trained the model, cells kept for validation, and, where
no model is trained, cells that qualify."""
COUNTED = (VALIDATION, QUALIFIED)
NO_CELLS = "no validation cell and no qualified cell is among the compared ones"
"""Why there are no results where no cell counts."""


def judged(inputs: ReportInputs) -> dict[str, pd.DataFrame]:
    """Lines that count of each reference, the most telling one first; may be empty.

    See `counted_lines` for the cells.
    """
    if inputs.assessment is None or "reference" not in inputs.assessment.metrics:
        return {}
    metrics = inputs.assessment.metrics
    found = in_order([str(name) for name in metrics["reference"].unique()])
    return {name: judged_lines(metrics, name) for name in found}


def in_order(references: list[str]) -> list[str]:
    """References, the most telling one first."""
    return sorted(references, key=lambda name: (*REFERENCES, *references).index(name))


def judged_lines(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Lines of a reference that count, in any table with ``reference`` and perhaps ``split``."""
    rows = counted_lines(table)
    return rows[rows["reference"] == reference]


def counted_lines(table: pd.DataFrame, known: pd.DataFrame | None = None) -> pd.DataFrame:
    """Lines of the cells that count: those of validation or that qualify.

    Args:
        table: any table, perhaps with ``split`` and ``cell_class``. Where no cell has a split, all
            count but those whose class is unqualified.
        known: table that says whether cells have a split; ``table`` itself if None.
    """
    if splits(table if known is None else known):
        return table[table["split"].isin(COUNTED)]
    return table[table["cell_class"] != UNQUALIFIED] if "cell_class" in table else table


def judged_density(inputs: ReportInputs) -> dict[tuple[str, str, str], Counts]:
    """Days of the cells that count by reference, estimate and depth group, where there are any."""
    if inputs.assessment is None:
        return {}
    density = inputs.assessment.density
    known = splits(inputs.assessment.metrics) | {key[1] for key in density}
    counted = COUNTED if known - {"", UNQUALIFIED} else ("",)
    found: dict[tuple[str, str, str], Counts] = {}
    for (reference, part, estimate, group), counts in density.items():
        if part in counted and counts.any():
            key = (reference, estimate, group)
            found[key] = found[key] + counts if key in found else counts
    return found


def trained(inputs: ReportInputs, reference: str) -> pd.DataFrame:
    """Lines of a reference on training cells; empty where there is none."""
    if inputs.assessment is None or "split" not in inputs.assessment.metrics:
        return pd.DataFrame()
    metrics = inputs.assessment.metrics
    return metrics[(metrics["reference"] == reference) & (metrics["split"] == TRAINING)]


def held_out(inputs: ReportInputs) -> bool:
    """Whether the cells that count are kept apart from others whose samples trained a model."""
    return inputs.assessment is not None and TRAINING in splits(inputs.assessment.metrics)


def cells_judged(inputs: ReportInputs) -> str:
    """What the cells that count are called."""
    return cells_of(inputs.assessment.metrics) if inputs.assessment is not None else "cells"


def cells_of(table: pd.DataFrame) -> str:
    """What the cells of a table that count are called."""
    known = splits(table)
    return f"{' and '.join(split for split in COUNTED if split in known)} cells".strip()


def splits(table: pd.DataFrame) -> set[str]:
    """Parts of cells that the table tells apart."""
    return set(table["split"].fillna("")) - {""} if "split" in table else set()


def called(reference: str) -> str:
    """A reference in a sentence."""
    return REFERENCES.get(reference, reference)


def no_cells(reference: str) -> str:
    """Sentence for a reference without a cell that counts."""
    return f"Results against {called(reference)}: not available because {NO_CELLS}."
