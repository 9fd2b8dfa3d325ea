"""Estimates and a reference on the same calendar days, and which of them count.

A series is compared on the days on which the reference and all estimates that take part have a
value, so that no estimate gains from easier days. An estimate that would leave too few days takes
no part in that series, and is told why.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.estimates.base import Estimate, cell_keys, positions

YIELD_SHARE = 0.5
"""Share of the others' common days that a yielding estimate must leave them to take part."""
Array = NDArray[np.float64]
Days = NDArray[np.int64]
Mask = NDArray[np.bool_]
Reasons = NDArray[np.object_]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Aligned:
    """Series of a reference of equal bounds, with what the estimates say.

    Attributes:
        estimates: those that cover the bounds.
        truth: the reference, shape (series, time), NaN where missing.
        values: shape (estimates, series, time), NaN where missing.
        lacks: whether an estimate lacks the cell, shape (estimates, series).
    """

    estimates: Sequence[Estimate]
    truth: Array
    values: Array
    lacks: Mask

    def only(self, chosen: Sequence[int]) -> "Aligned":
        """Some of the estimates, by position."""
        estimates = [self.estimates[i] for i in chosen]
        values, lacks = self.values[list(chosen)], self.lacks[list(chosen)]
        return Aligned(estimates, self.truth, values, lacks)


@dataclass(frozen=True, eq=False)
class Common:
    """The days that count.

    Attributes:
        mask: shape (series, time).
        used: whether an estimate takes part, shape (estimates, series).
        n: days that count, or for one left out those that it would have had, same shape.
        n_own: days on which the estimate and the reference have a value, same shape.
        reason: why an estimate is left out, empty where it is not, same shape.
    """

    mask: Mask
    used: Mask
    n: NDArray[np.int64]
    n_own: NDArray[np.int64]
    reason: Reasons


def distinct_names(estimates: Sequence[Estimate]) -> list[str]:
    """Names of the estimates.

    Raises:
        ValueError: if there is none or a name repeats.
    """
    names = [estimate.name for estimate in estimates]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"estimates are named {names}: expected at least one, distinct names")
    return names


def calendar(estimates: Sequence[Estimate], reference: xr.Dataset) -> Days:
    """Every day of the reference's period on which an estimate may have a value.

    Days on which only a yielding estimate has one don't matter.

    Returns:
        Days since 1970-01-01, without gaps.

    Raises:
        ValueError: if no estimate's period meets the reference's.
    """
    own = reference_days(reference)
    rivals = _rivals(estimates)
    days = _met(rivals, own)
    if not days.size:
        named = [*((e.name, e.days) for e in rivals), ("the reference", own)]
        text = "; ".join(f"{name}: {_period(axis)}" for name, axis in named)
        raise ValueError(f"estimates and reference have no day in common: {text}")
    return days


def calendar_or_own(estimates: Sequence[Estimate], reference: xr.Dataset) -> Days:
    """As `calendar`, but the reference's own period where no estimate's meets it."""
    own = reference_days(reference)
    days = _met(_rivals(estimates), own)
    return days if days.size else np.arange(own.min(), own.max() + 1)


def _rivals(estimates: Sequence[Estimate]) -> Sequence[Estimate]:
    return [estimate for estimate in estimates if not estimate.yields] or estimates


def _met(estimates: Sequence[Estimate], own: Days) -> Days:
    """Days from the first to the last on which a period meets ``own``; empty where none does."""
    axes = [estimate.days for estimate in estimates]
    spans = [
        (max(axis.min(), own.min()), min(axis.max(), own.max()))
        for axis in axes
        if axis.size and own.size
    ]
    spans = [(first, last) for first, last in spans if first <= last]
    if not spans:
        return np.empty(0, dtype=np.int64)
    return np.arange(min(first for first, _ in spans), max(last for _, last in spans) + 1)


def batches(
    estimates: Sequence[Estimate], reference: xr.Dataset, size: int
) -> Iterator[tuple[list[Estimate], NDArray[np.int64]]]:
    """Series of equal bounds, ``size`` at a time, with the estimates that cover them."""
    bounds = np.stack([reference["top"].to_numpy(), reference["bottom"].to_numpy()], axis=1)
    unique, code = np.unique(bounds, axis=0, return_inverse=True)
    for i, (top, bottom) in enumerate(unique.tolist()):
        used = [estimate for estimate in estimates if estimate.covers(top, bottom)]
        series = np.flatnonzero(code == i)
        for start in range(0, series.size if used else 0, size):
            yield used, series[start : start + size]


def align(
    estimates: Sequence[Estimate], reference: xr.Dataset, series: NDArray[np.int64], days: Days
) -> Aligned:
    """Some series of equal bounds, laid on calendar days."""
    found = reference["soil_moisture"].variable.isel(series=series).to_numpy()
    truth = on_days(found, reference_days(reference), days)
    row, column, top, bottom = (
        reference[name].to_numpy()[series] for name in ("row", "column", "top", "bottom")
    )
    keys, bounds = cell_keys(row, column), (float(top[0]), float(bottom[0]))
    values = np.empty((len(estimates), *truth.shape))
    lacks = np.empty(values.shape[:2], dtype=np.bool_)
    for e, estimate in enumerate(estimates):
        at = positions(keys, estimate.keys)
        lacks[e] = at < 0
        values[e] = _on_cells(estimate, at, days, bounds)
    return Aligned(estimates, truth, values, lacks)


def common_days(aligned: Aligned, min_days: int) -> Common:
    """The days that all have, and who takes part, by these rules:

    1. An estimate with fewer than ``min_days`` days in common with the reference is left out.
    2. While the rest have fewer than ``min_days`` common days, the one with the fewest days of its
       own is left out (of equals the later one).
    3. One that yields (`Estimate.yields`) takes part where it leaves the others ``min_days`` days
       and at least half of those that they have without it.
    """
    min_days = max(min_days, 1)
    truth = np.isfinite(aligned.truth)
    known = np.isfinite(aligned.values)
    n_own = np.count_nonzero(known & truth, axis=-1)
    used = n_own >= min_days
    reason = _without_days(aligned, n_own, truth)
    few = ~used & (reason == "")
    reason[few] = [f"{n} common days, {min_days} needed" for n in n_own[few]]
    found = Common(truth, used, n_own.copy(), n_own, reason)
    yields = np.array([estimate.yields for estimate in aligned.estimates])
    mask = _of_equals(found, truth, known, ~yields, min_days)
    left = np.where(used[~yields].any(axis=0), np.count_nonzero(mask, axis=-1), 0)
    for e in np.flatnonzero(yields).tolist():
        least = np.maximum(np.ceil(YIELD_SHARE * left), min_days)
        shared = mask & known[e]
        count = np.count_nonzero(shared, axis=-1)
        for s in np.flatnonzero(used[e] & (count < least)).tolist():
            text = f"it would leave the others {count[s]} of {left[s]} common days"
            _leave_out(found, e, s, int(count[s]), text)
        mask = np.where(used[e][:, None], shared, mask)
    n = np.where(used, np.count_nonzero(mask, axis=-1), found.n)
    return Common(mask, used, n, n_own, reason)


def _of_equals(
    found: Common, truth: Mask, known: Mask, equals: NDArray[np.bool_], min_days: int
) -> Mask:
    """Days common to the estimates among ``equals`` that stay; those that don't are noted."""
    out = ~(found.used & equals[:, None])
    mask = truth & (known | out[:, :, None]).all(axis=0)
    few = np.count_nonzero(mask, axis=-1) < min_days
    for s in np.flatnonzero(few & ~out.all(axis=0)).tolist():
        members = np.flatnonzero(~out[:, s]).tolist()
        while (count := int(np.count_nonzero(mask[s]))) < min_days:
            last = min(members, key=lambda e: (found.n_own[e, s], -e))
            members.remove(last)
            text = f"{count} common days with the other estimates, {min_days} needed"
            _leave_out(found, last, s, count, text)
            mask[s] = truth[s] & known[members, s].all(axis=0)
    return mask


def _leave_out(found: Common, estimate: int, series: int, count: int, why: str) -> None:
    found.used[estimate, series] = False
    found.n[estimate, series] = count
    found.reason[estimate, series] = f"left out: {why}"


def on_days(values: NDArray[np.floating], found: Days, days: Days) -> Array:
    """Series of ``found`` days laid on ``days``, NaN where a day is missing."""
    if not found.size:
        return np.full((*values.shape[:-1], days.size), np.nan)
    at = positions(days, found)
    if at.size and at[0] >= 0 and np.array_equal(at, np.arange(at[0], at[0] + at.size)):
        return values[..., at[0] : at[0] + at.size].astype(np.float64)
    return np.where(at >= 0, values[..., at].astype(np.float64), np.nan)


def reference_days(reference: xr.Dataset) -> Days:
    """Days of a reference since 1970-01-01."""
    return reference["time"].to_numpy().astype("datetime64[D]").astype(np.int64)


def _without_days(aligned: Aligned, n_own: NDArray[np.int64], truth: Mask) -> Reasons:
    """Why an estimate has no day at all in common with the reference; empty where it has one."""
    reason = np.full(n_own.shape, "", dtype=object)
    for e, estimate in enumerate(aligned.estimates):
        reason[e, n_own[e] == 0] = estimate.absence
    reason[aligned.lacks] = "the estimate lacks this cell"
    reason[:, ~truth.any(axis=-1)] = "the reference has no value"
    return reason


def _on_cells(
    estimate: Estimate, at: NDArray[np.int64], days: Days, bounds: tuple[float, float]
) -> Array:
    """An estimate's series for wanted cells and days, NaN where it lacks them."""
    cells, inverse = np.unique(at[at >= 0], return_inverse=True)
    if not cells.size:
        return np.full((at.size, days.size), np.nan)
    found = on_days(estimate.values(cells, *bounds), estimate.days, days)
    if np.array_equal(cells, at):
        return found
    values = np.full((at.size, days.size), np.nan)
    values[at >= 0] = found[inverse]
    return values


def _period(days: Days) -> str:
    if days.size == 0:
        return "no day at all"
    return " to ".join(str(np.datetime64(int(day), "D")) for day in (days.min(), days.max()))


def in_threads(
    work: Callable[[Item], Result], todo: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Results in the order of ``todo``, so many at a time."""
    if threads <= 1:
        yield from map(work, todo)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, todo)
