"""All that an evaluation finds, on some cells or on all: tables, densities and series."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DENSITY_EDGES = np.linspace(0.0, 0.6, 61)
"""Edges in m³ m⁻³ of the classes in which days are counted; values beyond are in the outermost."""
Counts = NDArray[np.int64]
DensityKey = tuple[str, str, str, str]


@dataclass(frozen=True, eq=False)
class DailySeries:
    """Series of references and what the estimates say, averaged over spans of days.

    Attributes:
        table: a row per series: ``reference``, ``row``, ``column``, ``group``, ``top``,
            ``bottom``, ``compared``, ``network``, ``cell_class``.
        days: first day of each span, days since 1970-01-01, shape (spans,).
        step: days of a span; 1 for daily values.
        truth: the reference in m³ m⁻³, float32, NaN where missing, shape (series, spans).
        estimates: by name the same of each estimate; all NaN where it does not cover a series.
    """

    table: pd.DataFrame
    days: NDArray[np.int64]
    step: int
    truth: NDArray[np.float32]
    estimates: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Assessment:
    """Results of an evaluation.

    Attributes:
        metrics: the long table, see `deepprofile.evaluation.skill.tables`.
        pairs: the table of pairs, see `deepprofile.evaluation.skill.pairs`; empty for none.
        intercomparison: lines per cell and layer of a product, see
            `deepprofile.evaluation.skill.intercomparison`; empty for none.
        density: by reference, part, estimate and depth group the number of compared days in
            classes of the reference (first axis) and of the estimate, between ``DENSITY_EDGES``.
            The part is the ``split`` of the cells; where they have none it is ``"unqualified"``
            for those that don't qualify and empty for the rest.
        series: None for none.
    """

    metrics: pd.DataFrame
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    intercomparison: pd.DataFrame = field(default_factory=pd.DataFrame)
    density: Mapping[DensityKey, Counts] = field(default_factory=dict)
    series: DailySeries | None = None
