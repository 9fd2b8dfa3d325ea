"""All metrics of aligned series, their confidence limits, and why one is missing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepprofile.evaluation.skill import metrics, uncertainty
from deepprofile.evaluation.skill.alignment import Aligned, Array, Common, Mask, Reasons
from deepprofile.evaluation.skill.ranks import correlate_ranks, ranks

WETTEST = 0.6
"""Soil moisture in m³ m⁻³ above which a value is hardly possible."""
LIMITED = ("bias", "r", "rmse", "ubrmse")
"""Metrics that have confidence limits."""
Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Settings:
    """How series are measured.

    Attributes:
        min_days: common days that metrics need.
        smap: name of the estimate of ``r_with_smap``.
        level: share of the replicates between confidence limits.
        draws: from `uncertainty.draw`; None for no limits.
    """

    min_days: int
    smap: str
    level: float = uncertainty.LEVEL
    draws: Array | None = None


def measure(aligned: Aligned, common: Common, settings: Settings) -> Columns:
    """Columns of the long table, each of shape (estimates, series)."""
    mask, least = common.mask, max(settings.min_days, 1)
    true_ranks = ranks(aligned.truth, mask)
    true_departures, exist = metrics.anomalies(aligned.truth, mask)
    names = [estimate.name for estimate in aligned.estimates]
    smap = names.index(settings.smap) if settings.smap in names else None
    lines = []
    for e, values in enumerate(aligned.values):
        values = np.where(mask & common.used[e][:, None], values, 0.0)
        whole = metrics.accumulate(values, aligned.truth, mask)
        departures, _ = metrics.anomalies(values, mask)
        anomaly = metrics.accumulate(departures, true_departures, exist)
        found = metrics.finish(whole, least)
        line: dict[str, NDArray[np.generic]] = {
            **{name: getattr(found, name) for name in (*LIMITED, "kge")},
            "anomaly_r": metrics.finish(anomaly, least).r,
            "spearman": correlate_ranks(ranks(values, mask), true_ranks, mask, least),
            "r_with_smap": np.full(len(mask), np.nan),
            **_shares(values, mask),
        }
        line["spearman"] = np.where(np.isnan(found.r), np.nan, line["spearman"])
        if smap is not None:
            together = mask & common.used[smap][:, None]
            line["r_with_smap"] = metrics.compare(values, aligned.values[smap], together, least).r
        known = {name: _known(column, common.used[e]) for name, column in line.items()}
        reason = _reason(common.reason[e], common.used[e], known, whole, anomaly, least)
        limits: Columns = {}
        if settings.draws is not None:
            limits = _limits(values, aligned.truth, mask, common.used[e], settings)
        days = {"n": common.n[e], "n_own": common.n_own[e]}
        lines.append({**days, **known, **limits, "reason": reason})
    return {name: np.stack([line[name] for line in lines]) for name in lines[0]}


def _known(column: NDArray[np.generic], used: NDArray[np.bool_]) -> Array:
    return np.where(used, column.astype(np.float64), np.nan)


def _shares(values: Array, mask: Mask) -> dict[str, NDArray[np.generic]]:
    n = np.maximum(np.count_nonzero(mask, axis=-1), 1)
    return {
        "share_below_0": np.count_nonzero(mask & (values < 0), axis=-1) / n,
        "share_above_06": np.count_nonzero(mask & (values > WETTEST), axis=-1) / n,
    }


def _limits(
    values: Array, truth: Array, mask: Mask, used: NDArray[np.bool_], settings: Settings
) -> Columns:
    """Limits of the metrics, and why there are none."""
    assert settings.draws is not None
    found = uncertainty.replicate_metrics(values, truth, mask, settings.draws)
    columns: Columns = {}
    for name in LIMITED:
        ends = uncertainty.interval(getattr(found, name), settings.level)
        columns[f"{name}_low"], columns[f"{name}_high"] = ends.low, ends.high
    columns = {name: _known(column, used) for name, column in columns.items()}
    missing = np.any([np.isnan(column.astype(np.float64)) for column in columns.values()], axis=0)
    return {**columns, "interval_reason": interval_reasons(mask, used, missing)}


def interval_reasons(mask: Mask, used: NDArray[np.bool_], missing: NDArray[np.bool_]) -> Reasons:
    """Why confidence limits are missing, shape (series,); empty where they are not."""
    reason = np.full(len(mask), "", dtype=object)
    least = uncertainty.MIN_BLOCKS * uncertainty.BLOCK_DAYS
    reason[missing] = "too few replicates have the metric"
    span = uncertainty.span_days(mask)
    for s in np.flatnonzero(missing & (span < least)):
        reason[s] = f"the common days span {span[s]} days, {least} needed"
    reason[~used] = "no metrics"
    return reason


def _reason(
    left_out: Reasons,
    used: NDArray[np.bool_],
    known: dict[str, Array],
    whole: metrics.Statistics,
    anomaly: metrics.Statistics,
    least: int,
) -> Reasons:
    """Why metrics of one estimate are missing, shape (series,)."""
    reason = left_out.copy()
    estimate_constant, truth_constant = metrics.constant(whole)
    no_anomaly = ~estimate_constant & ~truth_constant & np.isnan(known["anomaly_r"])
    few = anomaly.n < least
    departure_constant, true_departure_constant = metrics.constant(anomaly)
    causes = {
        "the estimate is constant": estimate_constant,
        "the reference is constant": truth_constant,
        f"fewer than {least} days have an anomaly": no_anomaly & few,
        "the anomalies of the estimate are constant": no_anomaly & ~few & departure_constant,
        "the anomalies of the reference are constant": no_anomaly & ~few & true_departure_constant,
        "the reference has a mean of 0": ~np.isnan(known["r"]) & np.isnan(known["kge"]),
    }
    for text, applies in causes.items():
        for s in np.flatnonzero(applies & used):
            reason[s] = f"{reason[s]}; {text}" if reason[s] else text
    return reason
