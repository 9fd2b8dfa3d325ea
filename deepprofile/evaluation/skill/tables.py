"""The long table: every estimate against every series of a reference on the same days."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.estimates.base import Estimate
from deepprofile.evaluation.skill import uncertainty
from deepprofile.evaluation.skill.alignment import (
    Aligned,
    Common,
    Days,
    align,
    batches,
    calendar,
    common_days,
    distinct_names,
    in_threads,
)
from deepprofile.evaluation.skill.measuring import LIMITED, Columns, Settings, measure
from deepprofile.evaluation.skill.summaries import METRICS, SHARES

MIN_DAYS = 30
"""Common days that a series must have for its metrics to count."""
BATCH = 64
"""Series at a time."""
LABELS = ("cell_class", "split", "network", "land_cover", "climate", "texture", "collocation")
"""Classes of a series that come into the table where the reference has them."""
LIMITS = tuple(f"{metric}_{end}" for metric in LIMITED for end in ("low", "high"))
"""Confidence limits."""
COLUMNS = (
    *("reference", "estimate", "group", "top", "bottom", "answered_by", "row", "column", *LABELS),
    *("n_stations", "n", "n_own", *METRICS, *LIMITS, "r_with_smap", *SHARES),
    *("reason", "interval_reason"),
)
"""Columns of the long table in their order; labels and limits are there where they are known."""
Visit = Callable[[NDArray[np.int64], Aligned, Common], None]
"""What is told of a batch: positions of its series, what was compared, and the days that count."""
_SERIES = ("group", "top", "bottom", "row", "column")


def evaluate(
    estimates: Sequence[Estimate],
    reference: xr.Dataset,
    *,
    name: str,
    smap: str = "smap_l4",
    min_days: int = MIN_DAYS,
    replicates: int = 0,
    level: float = uncertainty.LEVEL,
    seed: int = 0,
    batch: int = BATCH,
    threads: int = 1,
    days: Days | None = None,
    visit: Visit | None = None,
) -> pd.DataFrame:
    """Metrics of every estimate for every series of a reference.

    A series is compared on the days on which the reference and *all* estimates that take part
    have a value, so that no estimate gains from easier days. An estimate takes no part in a series
    where it would leave too few days, see :func:`~.alignment.common_days`.
    One that does not cover a depth has no line for it.

    Args:
        estimates: estimates with distinct names.
        reference: see :mod:`deepprofile.evaluation.reference.series`.
        name: name of the reference in the table, such as ``"stations"``.
        smap: name of the estimate with which the others are correlated in ``r_with_smap``.
        min_days: common days below which the metrics of a series are NaN (``n`` stays).
        replicates: replicates of the bootstrap behind confidence limits; 0 for none.
        level: share of the replicates between the limits.
        seed: of the bootstrap.
        batch: series at a time; memory grows with batch x estimates x days x threads.
        threads: batches at a time.
        days: calendar days that series are laid on, without gaps; those of `alignment.calendar`
            where None.
        visit: called with every batch, by several threads at once where there are some.

    Returns:
        The long table, a line per series and estimate, with :data:`COLUMNS`. ``answered_by``: what
        of the estimate is compared, such as which of a product's layers; ``n``: days compared, or
        for an estimate that takes no part those that it would have had; ``n_own``: days that it
        and the reference have. ``anomaly_r``: correlation of departures from a 35-day moving mean;
        ``spearman``: of ranks; ``kge``: Kling-Gupta efficiency; ``n_stations``: largest number of
        stations on a day; shares of the estimate's values below 0 and above 0.6 m³ m⁻³ on the days
        compared. ``reason``: why metrics are NaN, empty where none is; ``interval_reason``: the
        same of the limits. ``r_with_smap`` is NaN without an estimate of that name or where that
        takes no part. The table does not depend on ``batch`` or ``threads``.

    Raises:
        ValueError: if names repeat, or if no estimate's period meets the reference's and no days
            are given.
    """
    distinct_names(estimates)
    days = calendar(estimates, reference) if days is None else days
    draws = uncertainty.draw(days.size, replicates, seed=seed) if replicates else None
    settings = Settings(min_days, smap, level, draws)

    def work(todo: tuple[list[Estimate], NDArray[np.int64]]) -> Columns:
        used, series = todo
        aligned = align(used, reference, series, days)
        common = common_days(aligned, min_days)
        if visit is not None:
            visit(series, aligned, common)
        top, bottom = (float(reference[name].to_numpy()[series[0]]) for name in ("top", "bottom"))
        told = {
            "estimate": [estimate.name for estimate in used],
            "answered_by": [estimate.answered_by(top, bottom) for estimate in used],
        }
        columns = {name: np.repeat(texts, series.size) for name, texts in told.items()}
        columns |= measure(aligned, common, settings)
        return {"series": np.tile(series, len(used)), **columns}

    found = list(in_threads(work, batches(estimates, reference, batch), threads))
    return long_table(found, reference, {"reference": name}, COLUMNS)


def long_table(
    parts: Sequence[Columns],
    reference: xr.Dataset,
    constants: Mapping[str, str],
    order: Sequence[str],
) -> pd.DataFrame:
    """Lines of all batches in the order of the reference's series, which they are labelled with.

    Args:
        parts: columns of any shape, with the positions of the series in ``series``.
        reference: the reference.
        constants: columns of one value.
        order: columns in their order; those that nothing gives are left out.
    """
    described = {name: reference[name].to_numpy() for name in (*_SERIES, *_labels(reference))}
    described["n_stations"] = reference["n_stations"].max("time").to_numpy().astype(np.int64)
    if not parts:
        return pd.DataFrame(columns=list(order))
    columns = {key: np.concatenate([part[key].ravel() for part in parts]) for key in parts[0]}
    series = columns.pop("series").astype(np.int64)
    columns |= {name: values[series] for name, values in described.items()}
    at = np.argsort(series, kind="stable")
    table = {**constants, **{name: values[at] for name, values in columns.items()}}
    return pd.DataFrame({name: table[name] for name in order if name in table})


def _labels(reference: xr.Dataset) -> list[str]:
    return [label for label in LABELS if label in reference.variables]
