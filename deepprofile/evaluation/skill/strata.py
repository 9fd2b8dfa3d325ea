"""Do metrics differ between classes of cells: Student's t-test, corrected for many tests.

Classes are a column of the long table: land cover, soil texture, climate, network, core or extra,
whether triple collocation is valid. Small classes are left out of tests, and named.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, ttest_ind_from_stats

from deepprofile.evaluation.skill.summaries import (
    CELL,
    CLASS_CELLS,
    UNKNOWN,
    cell_means,
    class_names,
)

KEYS = ("reference", "estimate", "group")
"""Columns within whose values classes are compared."""
COLUMNS = (
    *("by", "metric", "class_a", "class_b", "n_a", "n_b", "mean_a", "mean_b", "t", "p", "reason"),
)
_PAIR = (*COLUMNS[:-3], "std_a", "std_b")
CONSTANT = "neither class varies"
Array = NDArray[np.float64]


def class_sizes(
    table: pd.DataFrame, by: str, *, keys: Sequence[str] = (), min_cells: int = CLASS_CELLS
) -> pd.DataFrame:
    """Number of cells of each class, and whether it is compared.

    Args:
        table: the long table, or any other with ``row``, ``column`` and the columns below.
        by: column of the class; a missing or empty one is a class of its own, named
            ``"unknown"``, that is never compared.
        keys: columns within whose values classes are counted.
        min_cells: cells that a class needs.

    Returns:
        ``keys``, ``by``, ``class``, ``n_cells``, ``used``, and ``reason``: why a class is not used.

    Raises:
        KeyError: if a column is not there.
    """
    named = table.assign(**{"class": class_names(table[by])})
    cells = named.drop_duplicates([*keys, "class", *CELL])
    sizes = cells.groupby([*keys, "class"], sort=True).size().rename("n_cells").reset_index()
    sizes.insert(len(keys), "by", by)
    few, unknown = sizes["n_cells"] < min_cells, sizes["class"] == UNKNOWN
    sizes["used"] = ~few & ~unknown
    sizes["reason"] = np.where(few, f"fewer than {min_cells} cells", "")
    sizes.loc[unknown, "reason"] = "no class is known"
    return sizes


def compare_classes(
    table: pd.DataFrame,
    by: Sequence[str],
    metrics: Sequence[str],
    *,
    keys: Sequence[str] = KEYS,
    min_cells: int = CLASS_CELLS,
) -> pd.DataFrame:
    """Student's t-test of every pair of classes, with p-values corrected over all of them.

    Args:
        table: the long table; a cell with several series counts once, with their mean.
        by: columns of classes, each compared for itself.
        metrics: columns of the metrics; a cell without a value does not count.
        keys: columns within whose values classes are compared.
        min_cells: cells with a value that a class needs; smaller ones are left out, see
            `class_sizes`.

    Returns:
        ``keys``, then :data:`COLUMNS`, and ``p_adjusted`` after Benjamini and Hochberg (1995,
        doi:10.1111/j.2517-6161.1995.tb02031.x): among tests with ``p_adjusted`` below 0.05, one in
        twenty is expected to be wrong. ``t`` and ``p`` assume equal variances (Student), as the
        paper does, and cells that are independent of each other. ``reason``: why there is no
        ``p``. Empty where no two classes are large enough.
    """
    lines = []
    for name in by:
        named = table.assign(**{name: class_names(table[name])})
        cells = cell_means(named, [*keys, name], metrics)
        for names, part in cells.groupby(list(keys), sort=False):
            if part[name].nunique() < 2:
                continue
            where = names if isinstance(names, tuple) else (names,)
            pairs = (p for metric in metrics for p in _pairs(part, name, metric, min_cells))
            lines += [(*where, *pair) for pair in pairs]
    found = pd.DataFrame(lines, columns=[*keys, *_PAIR])
    found["t"], found["p"], found["reason"] = _student(found)
    found = found[[*keys, *COLUMNS]]
    known = found["p"].notna()
    found["p_adjusted"] = np.nan
    if known.any():
        found.loc[known, "p_adjusted"] = false_discovery_control(found.loc[known, "p"])
    return found


def _pairs(
    part: pd.DataFrame, by: str, metric: str, min_cells: int
) -> Iterator[tuple[object, ...]]:
    """What a test of two classes is made of, for every pair of classes that are large enough."""
    names, values = part[by].to_numpy(dtype=str), part[metric].to_numpy(dtype=np.float64)
    names, values = names[~np.isnan(values)], values[~np.isnan(values)]
    distinct, counts = np.unique(names, return_counts=True)
    large = [str(n) for n in distinct[counts >= min_cells] if n != UNKNOWN]
    classes = {name: _moments(values[names == name]) for name in large}
    for a, b in combinations(large, 2):
        of_both = zip(classes[a], classes[b], strict=True)
        yield (by, metric, a, b, *(moment for both in of_both for moment in both))


def _moments(values: Array) -> tuple[int, float, float]:
    """Number, mean and standard deviation; exactly 0 where all values are the same."""
    spread = float(np.std(values, ddof=1)) if np.ptp(values) > 0 else 0.0
    return len(values), float(np.mean(values)), spread


def _student(pairs: pd.DataFrame) -> tuple[Array, Array, NDArray[np.str_]]:
    """Statistics, p-values and why there is none, for all pairs at once."""
    statistic, p = (np.full(len(pairs), np.nan) for _ in range(2))
    single = (pairs[["n_a", "n_b"]] < 2).any(axis=1).to_numpy()
    constant = (pairs[["std_a", "std_b"]] == 0).all(axis=1).to_numpy()
    tested = pairs[~single & ~constant]
    one, other = (tested[[f"mean_{c}", f"std_{c}", f"n_{c}"]].to_numpy(float).T for c in "ab")
    statistic[tested.index], p[tested.index] = ttest_ind_from_stats(*one, *other)
    reason = np.where(single, "a class has a single cell", np.where(constant, CONSTANT, ""))
    return statistic, p, reason
