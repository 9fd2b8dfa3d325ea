"""Everything that the long table says of cells together: summaries, classes, what is missing."""

import pandas as pd

from deepprofile.evaluation.skill.strata import compare_classes
from deepprofile.evaluation.skill.summaries import (
    CLASS_CELLS,
    UNKNOWN,
    class_names,
    missing_metrics,
    summarise,
    summarise_classes,
)

KEYS = ("reference", "split", "group")
"""Cells of different ``split`` are kept apart: those that trained a model would flatter it."""
LINES = (*KEYS[:-1], "estimate", KEYS[-1])
"""Columns that make a line, in the order of the tables of tests and of missing metrics."""
CLASSES = ("cell_class", "network", "land_cover", "texture", "climate", "collocation")
"""Columns by which cells are classed where the long table knows a class."""
TESTED = ("r", "ubrmse", "bias")
"""Metrics that are tested between classes."""


def overview(metrics: pd.DataFrame, min_cells: int = CLASS_CELLS) -> dict[str, pd.DataFrame]:
    """Tables of the long table.

    Args:
        metrics: the long table, with at least one line.
        min_cells: cells below which a line is marked, and a class is not compared with others.

    Returns:
        ``summary``, ``classes``, ``class_tests`` and ``missing_metrics``; some may be empty.
    """
    known = known_classes(metrics)
    return {
        "summary": summarise(metrics, KEYS, min_cells=min_cells),
        "classes": summarise_classes(metrics, known, keys=KEYS, min_cells=min_cells),
        "class_tests": class_tests(metrics, min_cells),
        "missing_metrics": missing_metrics(metrics, LINES),
    }


def class_tests(metrics: pd.DataFrame, min_cells: int = CLASS_CELLS) -> pd.DataFrame:
    """Every test between classes: one family, so that all its parts have the same p-values.

    Args:
        metrics: the long table; cells are not kept apart where it has no ``split``.
        min_cells: cells with a value that a class needs.

    Returns:
        See :func:`~.strata.compare_classes`.
    """
    keys = [name for name in LINES if name in metrics]
    return compare_classes(metrics, known_classes(metrics), TESTED, keys=keys, min_cells=min_cells)


def known_classes(metrics: pd.DataFrame) -> list[str]:
    """Columns of classes of which the long table knows at least one."""
    return [name for name in CLASSES if name in metrics and _any_known(metrics[name])]


def _any_known(classes: pd.Series) -> bool:
    return bool((class_names(classes) != UNKNOWN).any())
