"""Paired comparison: is one estimate better than another on their common days, cell by cell?

Both are compared with the reference on the days that the two and the reference have, and the
bootstrap puts the same days into the replicates of both. What they share, such as the sensor's own
errors, cancels in the difference, which is therefore known better than either metric.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.estimates.base import Estimate
from deepprofile.evaluation.skill import metrics, uncertainty
from deepprofile.evaluation.skill.alignment import (
    Aligned,
    Array,
    align,
    batches,
    calendar,
    common_days,
    distinct_names,
    in_threads,
)
from deepprofile.evaluation.skill.measuring import Columns, interval_reasons
from deepprofile.evaluation.skill.summaries import CELL, MIN_CELLS, in_order, quartiles
from deepprofile.evaluation.skill.tables import BATCH, LABELS, MIN_DAYS, long_table

COMPARED = {"r": 1.0, "ubrmse": -1.0}
"""Metrics that are compared, and the sign of a difference that is better."""
Flags = NDArray[np.bool_]
BETTER, WORSE, UNCLEAR = "better", "worse", "unclear"
_SUFFIXES = ("subject", "other", "difference", "difference_low", "difference_high", "verdict")
COLUMNS = (
    *("reference", "subject", "other", "group", "top", "bottom", "row", "column", *LABELS, "n"),
    *(f"{metric}_{suffix}" for metric in COMPARED for suffix in _SUFFIXES),
    *("reason", "interval_reason"),
)
"""Columns of the table of pairs in their order; labels are there where they are known."""


@dataclass(frozen=True)
class Pairing:
    """How pairs are compared; see `paired`."""

    subject: str
    min_days: int
    level: float
    draws: Array


def paired(
    estimates: Sequence[Estimate],
    reference: xr.Dataset,
    *,
    name: str,
    subject: str,
    others: Sequence[str] = (),
    min_days: int = MIN_DAYS,
    replicates: int = uncertainty.REPLICATES,
    level: float = uncertainty.LEVEL,
    seed: int = 0,
    batch: int = BATCH,
    threads: int = 1,
) -> pd.DataFrame:
    """Differences in skill between one estimate and others, for every series of a reference.

    Args:
        estimates: estimates with distinct names.
        reference: see :mod:`deepprofile.evaluation.reference.series`.
        name: name of the reference in the table.
        subject: name of the estimate that is judged.
        others: names of those that it is compared with; all others where empty.
        min_days: common days that a pair needs.
        replicates: replicates of the bootstrap.
        level: share of the replicates between the limits.
        seed: of the bootstrap.
        batch: series at a time.
        threads: batches at a time.

    Returns:
        A line per series and other estimate that covers it, with :data:`COLUMNS`: ``n`` days of the
        pair; of R and ubRMSE the value of the subject and of the other on these days, the
        difference (subject minus other) and its limits, and the verdict: ``"better"`` or
        ``"worse"`` where the limits lie on one side of 0, ``"unclear"`` where they don't, empty
        where there are none. ``reason``: why there is no difference; ``interval_reason``: why there
        is no verdict.

    Raises:
        ValueError: if names repeat or are not those of estimates, or if no estimate's period meets
            the reference's.
    """
    names = distinct_names(estimates)
    unknown = [n for n in (subject, *others) if n not in names] or ([subject] * (subject in others))
    if unknown or len(names) < 2:
        raise ValueError(
            f"can't compare {subject!r} with {list(others)}: expected two different names out of "
            f"{names}"
        )
    chosen = {subject, *(others or names)}
    estimates = [estimate for estimate in estimates if estimate.name in chosen]
    days = calendar(estimates, reference)
    pairing = Pairing(subject, min_days, level, uncertainty.draw(days.size, replicates, seed=seed))

    def work(todo: tuple[list[Estimate], NDArray[np.int64]]) -> Columns:
        used, series = todo
        covering = [estimate.name for estimate in used]
        if subject not in covering or len(covering) < 2:
            return {}
        columns = _differences(align(used, reference, series, days), pairing)
        others = np.repeat([other for other in covering if other != subject], series.size)
        return {"series": np.tile(series, len(covering) - 1), "other": others, **columns}

    found = in_threads(work, batches(estimates, reference, batch), threads)
    constants = {"reference": name, "subject": subject}
    return long_table([part for part in found if part], reference, constants, COLUMNS)


def summarise_pairs(
    table: pd.DataFrame,
    by: Sequence[str] = ("reference", "group"),
    *,
    min_cells: int = MIN_CELLS,
) -> pd.DataFrame:
    """Differences over cells: how large, and in how many cells beyond doubt.

    Args:
        table: from `paired`, or several in one.
        by: columns that make a stratum.
        min_cells: cells below which a line is marked in ``few_cells``.

    Returns:
        A line per stratum, subject and other estimate: ``n_cells`` with a difference of R,
        ``n_cells_without`` one; for R and ubRMSE the median ``<metric>_difference`` over cells and
        its quartiles, ``<metric>_cells_judged`` with a verdict, and the shares of these in which
        the subject is ``<metric>_better`` and ``<metric>_worse`` beyond the limits. Of two equally
        good estimates each would win about 2.5 % of the cells at a level of 95 %. A cell with
        several series in a stratum counts once, with their mean.
    """
    keys = [*by, "subject", "other"]
    marked = table.copy()
    for metric in COMPARED:
        judged = marked[f"{metric}_verdict"] != ""
        for verdict in (BETTER, WORSE):
            is_so = (marked[f"{metric}_verdict"] == verdict).astype(float)
            marked[f"{metric}_{verdict}"] = is_so.where(judged)
    values = [f"{m}_{what}" for m in COMPARED for what in ("difference", BETTER, WORSE)]
    cells = marked.groupby([*keys, *CELL], sort=False, dropna=False)[values].mean().reset_index()
    groups = cells.groupby(keys, sort=False, dropna=False)
    summary = pd.DataFrame({"n_cells": groups["r_difference"].count()})
    summary["n_cells_without"] = groups.size() - summary["n_cells"]
    for metric in COMPARED:
        summary = summary.join(quartiles(groups, [f"{metric}_difference"]))
        summary[f"{metric}_cells_judged"] = groups[f"{metric}_{BETTER}"].count()
        for verdict in (BETTER, WORSE):
            summary[f"{metric}_{verdict}"] = groups[f"{metric}_{verdict}"].mean()
    summary["few_cells"] = summary["n_cells"] < min_cells
    return in_order(summary.reset_index(), keys, table)


def _differences(aligned: Aligned, pairing: Pairing) -> Columns:
    """Columns of the table of pairs, each of shape (others, series)."""
    names = [estimate.name for estimate in aligned.estimates]
    first = names.index(pairing.subject)
    lines = [_pair(aligned, first, i, pairing) for i in range(len(names)) if i != first]
    return {name: np.stack([line[name] for line in lines]) for name in lines[0]}


def _pair(aligned: Aligned, first: int, second: int, pairing: Pairing) -> Columns:
    """Columns of one pair, each of shape (series,)."""
    two = [first, second]
    pair = aligned.only(two)
    common = common_days(pair, pairing.min_days)
    both = np.asarray(common.used.all(axis=0))
    mask = common.mask & both[:, None]
    values = np.where(mask, pair.values, 0.0)
    truth = np.broadcast_to(pair.truth, values.shape)
    whole = metrics.accumulate(values, truth, mask)
    found = metrics.finish(whole, max(pairing.min_days, 1))
    drawn = uncertainty.replicate_metrics(values, truth, mask, pairing.draws)
    n = np.where(both, np.count_nonzero(mask, axis=-1), common.n.min(axis=0))
    line: Columns = {"n": n}
    missing = np.zeros(both.shape, dtype=np.bool_)
    for metric, sign in COMPARED.items():
        one, other = getattr(found, metric)
        replicates = getattr(drawn, metric)
        ends = uncertainty.interval(replicates[0] - replicates[1], pairing.level)
        line[f"{metric}_subject"], line[f"{metric}_other"] = one, other
        line[f"{metric}_difference"] = one - other
        line[f"{metric}_difference_low"] = ends.low
        line[f"{metric}_difference_high"] = ends.high
        line[f"{metric}_verdict"] = _verdict(ends, sign)
        missing |= np.isnan(ends.low)
    line["reason"] = _reason(common.reason, whole, both, [aligned.estimates[i].name for i in two])
    line["interval_reason"] = interval_reasons(mask, both, missing)
    return line


def _verdict(ends: uncertainty.Interval, sign: float) -> NDArray[np.generic]:
    verdict = np.full(ends.low.shape, "", dtype=object)
    verdict[np.isfinite(ends.low)] = UNCLEAR
    verdict[(ends.low > 0) if sign > 0 else (ends.high < 0)] = BETTER
    verdict[(ends.high < 0) if sign > 0 else (ends.low > 0)] = WORSE
    return verdict


def _reason(
    left_out: NDArray[np.object_],
    whole: metrics.Statistics,
    both: Flags,
    names: Sequence[str],
) -> NDArray[np.object_]:
    """Why a pair has no difference, shape (series,); empty where it has one."""
    reason = np.full(both.size, "", dtype=object)
    for s in np.flatnonzero(~both):
        told = [f"{n}: {text}" for n, text in zip(names, left_out[:, s], strict=True) if text]
        reason[s] = "; ".join(told)
    estimate_constant, truth_constant = metrics.constant(whole)
    for s in np.flatnonzero(both & (estimate_constant.any(axis=0) | truth_constant[0])):
        told = [n for n, constant in zip(names, estimate_constant[:, s], strict=True) if constant]
        told += ["the reference"] if truth_constant[0, s] else []
        reason[s] = f"constant: {', '.join(told)}"
    return reason
