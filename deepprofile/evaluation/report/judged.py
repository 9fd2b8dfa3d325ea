"""Which lines of the table of metrics a report judges by, and what references are called."""

import pandas as pd

from deepprofile.evaluation.reference.ground_truth import UNQUALIFIED
from deepprofile.evaluation.report.inputs import ReportInputs

REFERENCES = {"truth": "the known truth", "stations": "stations"}
"""What a reference is called in a sentence, the most telling one first."""
TRAINING, VALIDATION = "train", "validation"
"""Values of ``split``: cells whose samples trained the model, and cells kept for validation."""


def judged(inputs: ReportInputs) -> dict[str, pd.DataFrame]:
    """Lines that count of each reference, the most telling one first; may be empty.

    Those of validation cells; where no cell has a split those of all qualified cells.
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
    rows = table[table["reference"] == reference]
    if _splits(table):
        return rows[rows["split"] == VALIDATION]
    return rows[rows["cell_class"] != UNQUALIFIED] if "cell_class" in rows else rows


def trained(inputs: ReportInputs, reference: str) -> pd.DataFrame:
    """Lines of a reference on training cells; empty where there is none."""
    if inputs.assessment is None or "split" not in inputs.assessment.metrics:
        return pd.DataFrame()
    metrics = inputs.assessment.metrics
    return metrics[(metrics["reference"] == reference) & (metrics["split"] == TRAINING)]


def held_out(inputs: ReportInputs) -> bool:
    """Whether the cells that count are kept apart from others whose samples trained a model."""
    return inputs.assessment is not None and TRAINING in _splits(inputs.assessment.metrics)


def cells_judged(inputs: ReportInputs) -> str:
    """What the cells that count are called."""
    return "validation cells" if held_out(inputs) else "cells"


def _splits(table: pd.DataFrame) -> set[str]:
    """Parts of cells that the table tells apart."""
    return set(table["split"].fillna("")) - {""} if "split" in table else set()


def called(reference: str) -> str:
    """A reference in a sentence."""
    return REFERENCES.get(reference, reference)


def no_cells(reference: str) -> str:
    """Sentence for a reference without a cell that counts."""
    return (
        f"Results against {called(reference)}: not available because no validation cell is "
        "among the compared ones."
    )
