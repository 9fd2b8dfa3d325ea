"""What is kept of compared series beside metrics: days by value, and means over spans of days."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.assessment import DENSITY_EDGES, Counts, DailySeries, DensityKey
from deepprofile.evaluation.reference.ground_truth import UNQUALIFIED
from deepprofile.evaluation.skill import kernels
from deepprofile.evaluation.skill.alignment import (
    Aligned,
    Common,
    Days,
    on_days,
    reference_days,
)

SERIES_COLUMNS = (
    *("row", "column", "group", "top", "bottom", "compared", "network", "cell_class"),
)
"""What is told of a kept series beside the name of its reference."""
Positions = NDArray[np.int64]


@dataclass(eq=False)
class Density:
    """Days that count in a comparison, by value of the reference and of the estimate.

    Attributes:
        keys: part and depth group of each series, shape (series,), see `Assessment.density`.
        counts: by part, estimate and group; only where a day counts.
    """

    keys: Sequence[tuple[str, str]]
    counts: dict[tuple[str, str, str], Counts] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def add(self, series: Positions, aligned: Aligned, common: Common) -> None:
        """Count the days of a batch; threads may do so at once."""
        keys = [self.keys[s] for s in series]
        for part, group in sorted(set(keys)):
            here = np.array([key == (part, group) for key in keys])
            truth = np.ascontiguousarray(aligned.truth[here])
            for e, estimate in enumerate(aligned.estimates):
                mask = common.mask[here] & common.used[e, here][:, None]
                values = np.ascontiguousarray(aligned.values[e, here])
                found = kernels.joint_counts(values, truth, mask, DENSITY_EDGES)
                if found.any():
                    with self._lock:
                        key = (part, estimate.name, group)
                        self.counts[key] = self.counts.get(key, 0) + found


def density_keys(reference: xr.Dataset) -> list[tuple[str, str]]:
    """Part and depth group of each series of a reference, see `Assessment.density`."""
    split, kind, group = (
        reference[name].to_numpy().astype(str) for name in ("split", "cell_class", "group")
    )
    parts = np.where((split == "") & (kind == UNQUALIFIED), UNQUALIFIED, split)
    return list(zip(parts.tolist(), group.tolist(), strict=True))


class Spans:
    """Means over spans of days of a reference and of estimates.

    Spans begin at multiples of ``step`` days since 1970-01-01, whatever the first day is; a span's
    value is the mean of its finite days, whichever of them count in the comparison.
    """

    def __init__(self, reference: xr.Dataset, names: Sequence[str], days: Days, step: int) -> None:
        """Room for every series of a reference.

        Args:
            reference: see :mod:`deepprofile.evaluation.reference.series`.
            names: of the estimates.
            days: calendar days, without gaps.
            step: days of a span.
        """
        self._reference, self._calendar, self._step = reference, days, step
        self._days = np.arange(days[0] // step, days[-1] // step + 1) * step
        self._starts = np.maximum(self._days - days[0], 0)
        shape = (reference.sizes["series"], self._days.size)
        self._truth = np.full(shape, np.nan, dtype=np.float32)
        self._estimates = {name: np.full(shape, np.nan, dtype=np.float32) for name in names}
        self._seen = np.zeros(shape[0], dtype=np.bool_)

    def add(self, series: Positions, aligned: Aligned, common: Common) -> None:
        """Keep a batch; threads may do so at once, since each writes series of its own."""
        del common
        self._truth[series] = self._means(aligned.truth)
        for estimate, values in zip(aligned.estimates, aligned.values, strict=True):
            self._estimates[estimate.name][series] = self._means(values)
        self._seen[series] = True

    def kept(self, name: str, batch: int) -> DailySeries:
        """Everything kept, with those series of the reference that no estimate covers.

        Args:
            name: of the reference.
            batch: series at a time.
        """
        unseen = np.flatnonzero(~self._seen)
        found = self._reference["soil_moisture"].variable
        own = reference_days(self._reference)
        for start in range(0, unseen.size, batch):
            series = unseen[start : start + batch]
            values = found.isel(series=series).to_numpy()
            self._truth[series] = self._means(on_days(values, own, self._calendar))
        table = pd.DataFrame({c: self._reference[c].to_numpy() for c in SERIES_COLUMNS})
        table.insert(0, "reference", name)
        return DailySeries(table, self._days, self._step, self._truth, self._estimates)

    def _means(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = kernels.span_means(values, self._starts)
        return found


def merge_series(parts: Sequence[DailySeries], order: Sequence[str]) -> DailySeries | None:
    """All series on the spans of all parts, sorted; None of no part.

    Args:
        parts: with spans of equal length.
        order: columns of the table to sort by.

    Raises:
        ValueError: if spans have different lengths.
    """
    steps = sorted({part.step for part in parts})
    if len(steps) > 1:
        raise ValueError(f"series of spans of {steps} days can't be merged: expected one length")
    if not parts:
        return None
    table = pd.concat([part.table for part in parts], ignore_index=True)
    at = table.sort_values(list(order), kind="stable").index.to_numpy()
    place = np.empty(at.size, dtype=np.int64)
    place[at] = np.arange(at.size)
    first, last = min(p.days[0] for p in parts), max(p.days[-1] for p in parts)
    days = np.arange(first, last + 1, steps[0])
    places = np.split(place, np.cumsum([len(part.table) for part in parts])[:-1])

    def laid(of: Sequence[Mapping[str, NDArray[np.float32]]], name: str) -> NDArray[np.float32]:
        result = np.full((at.size, days.size), np.nan, dtype=np.float32)
        for part, rows, values in zip(parts, places, of, strict=True):
            if name in values:
                start = (part.days[0] - first) // steps[0]
                result[rows, start : start + part.days.size] = values[name]
        return result

    names = names_of([list(part.estimates) for part in parts])
    truth = laid([{"": part.truth} for part in parts], "")
    estimates = {name: laid([part.estimates for part in parts], name) for name in names}
    return DailySeries(table.loc[at].reset_index(drop=True), days, steps[0], truth, estimates)


def names_of(lists: Sequence[Sequence[str]]) -> list[str]:
    """Names of all lists: in their order where all agree, else sorted."""
    agreed = all(list(one) == list(lists[0]) for one in lists)
    return list(lists[0]) if agreed and lists else sorted({name for one in lists for name in one})


def merge_lines(parts: Sequence[pd.DataFrame], order: Sequence[str]) -> pd.DataFrame:
    """Lines of all parts, sorted by the columns ``order``; those of equals stay as they are."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return pd.DataFrame()
    stacked = pd.concat(filled, ignore_index=True)
    return stacked.sort_values(list(order), kind="stable", ignore_index=True)


def merge_density(
    parts: Sequence[Mapping[DensityKey, Counts]],
) -> dict[DensityKey, Counts]:
    """Counts of all parts, by key in sorted order."""
    total: dict[DensityKey, Counts] = {}
    for part in parts:
        for key, counts in part.items():
            total[key] = total[key] + counts if key in total else counts
    return dict(sorted(total.items()))
