"""Do metrics differ between classes of cells: Student's t-test, corrected for many tests.

Classes are a column of a table with a line a cell: land cover, soil texture, climate, network,
core or extra, whether triple collocation is valid. Small classes are left out and named.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, ttest_ind

MIN_CELLS = 20
"""Cells that a class needs, as in Zhu et al. (2026)."""
UNKNOWN = "unknown"
"""Class of the cells that have none."""
COLUMNS = ("by", "metric", "class_a", "class_b", "n_a", "n_b", "mean_a", "mean_b", "t", "p")


def class_sizes(
    table: pd.DataFrame, by: str, *, keys: Sequence[str] = (), min_cells: int = MIN_CELLS
) -> pd.DataFrame:
    """Number of cells of each class, and whether it is compared.

    Args:
        table: a line a cell (and, with ``keys``, an estimate or depth group).
        by: column of the class; a missing one is a class of its own, named ``"unknown"``, that is
            never compared.
        keys: columns within whose values classes are counted.
        min_cells: cells that a class needs.

    Returns:
        ``keys``, ``by``, ``class``, ``n_cells``, ``used``.

    Raises:
        KeyError: if a column is not there.
    """
    classes = table[by].astype(object).where(table[by].notna(), UNKNOWN)
    counted = table.assign(**{"class": classes}).groupby([*keys, "class"], sort=True).size()
    sizes = counted.rename("n_cells").reset_index()
    sizes.insert(len(keys), "by", by)
    sizes["used"] = (sizes["n_cells"] >= min_cells) & (sizes["class"] != UNKNOWN)
    return sizes


def compare_classes(
    table: pd.DataFrame,
    by: Sequence[str],
    metrics: Sequence[str],
    *,
    keys: Sequence[str] = ("estimate", "group"),
    min_cells: int = MIN_CELLS,
) -> pd.DataFrame:
    """Student's t-test of every pair of classes, with p-values corrected over all of them.

    Args:
        table: a line for each cell and combination of ``keys``.
        by: columns of classes, each compared for itself.
        metrics: columns of the metrics; a cell without a value does not count.
        keys: columns within whose values classes are compared.
        min_cells: cells with a value that a class needs; smaller ones are left out, see
            `class_sizes`.

    Returns:
        ``keys``, then :data:`COLUMNS`, and ``p_adjusted`` after Benjamini and Hochberg (1995,
        doi:10.1111/j.2517-6161.1995.tb02031.x): among tests with ``p_adjusted`` below 0.05, one in
        twenty is expected to be wrong. ``t`` and ``p`` assume equal variances (Student), as the
        paper does. Empty where no two classes are large enough.
    """
    lines = [
        (*_as_tuple(names), *test)
        for names, part in table.groupby(list(keys), sort=False)
        for name in by
        for metric in metrics
        for test in _tests(part, name, metric, min_cells)
    ]
    found = pd.DataFrame(lines, columns=[*keys, *COLUMNS])
    known = found["p"].notna()
    found["p_adjusted"] = np.nan
    if known.any():
        found.loc[known, "p_adjusted"] = false_discovery_control(found.loc[known, "p"])
    return found


def _tests(
    part: pd.DataFrame, by: str, metric: str, min_cells: int
) -> Iterator[tuple[object, ...]]:
    known = part[part[metric].notna() & part[by].notna()]
    classes = {
        str(name): values.to_numpy(dtype=np.float64)
        for name, values in known.groupby(by, sort=True)[metric]
        if len(values) >= min_cells
    }
    for (a, one), (b, other) in combinations(classes.items(), 2):
        result = ttest_ind(one, other)
        yield (by, metric, a, b, len(one), len(other), one.mean(), other.mean(), *result)


def _as_tuple(names: object) -> tuple[object, ...]:
    return names if isinstance(names, tuple) else (names,)
