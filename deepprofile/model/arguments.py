"""What ``dp.predict`` is given, checked before anything is computed: values as far as they lie in
memory, and those of lazy arrays part by part when they are there.
"""

from collections.abc import Hashable
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.model.compatibility import (
    Labels,
    feature_problems,
    invalid_limits,
    label_problems,
    labels_of,
    limit_problems,
    part_problems,
    untrained,
)
from deepprofile.model.network import DeepProfile

PROBE = 100_000
"""Cell-days of forcing that are compared with the model's limits."""
MAX_NAMED = 3
"""Problems that an error names."""


def check_types(model: Any, **arrays: Any) -> None:
    """Raise TypeError unless the model is a network and every array a real DataArray or None."""
    if not isinstance(model, DeepProfile):
        raise TypeError(
            f"model is a {type(model).__name__}: expected a DeepProfile, such as "
            "dp.load_model(url) returns"
        )
    for name, array in arrays.items():
        if not isinstance(array, xr.DataArray | None):
            raise TypeError(
                f"{name} is a {type(array).__name__}: expected an xarray.DataArray, such as one "
                "variable of the dataset that dp.open_cube(url) returns"
            )
        if array is not None and array.dtype.kind == "c":
            raise TypeError(f"{name} is complex: expected real numbers, such as {name}.real")


def check_limits(model: DeepProfile) -> None:
    """Raise ValueError unless the model can normalise what it is given."""
    problems = invalid_limits(model)
    if problems:
        raise ValueError(f"{'; '.join(problems)}. Set the limits with model.set_limits")


def ordered(array: xr.DataArray, dims: tuple[str, ...], name: str) -> xr.DataArray:
    """The array with its dimensions in order; raises ValueError if it has others."""
    if set(array.dims) != set(dims):
        raise ValueError(f"{name} has dimensions {array.dims}: expected {dims}")
    return array.transpose(*dims)


def check_labels(array: xr.DataArray, dim: str, expected: Labels) -> None:
    """Raise ValueError unless number, names, order and units along ``dim`` are the model's."""
    found = labels_of(array, dim)
    problems = label_problems(dim, found, expected)
    if problems:
        more = f" ({len(problems) - 1} more differ)" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0]}{more}. {_label_advice(dim, found, expected)}")


def _label_advice(dim: str, found: Labels, expected: Labels) -> str:
    """What to do where labels differ."""
    if not expected.names:
        fits = found.size == expected.size
        return f"Convert to model.config.{dim}_units." if fits else "Give those of the training."
    if found.size == expected.size and found.names in ((), expected.names):
        return f"Convert to the units of model.config.{dim}_units."
    if set(expected.names) <= set(found.names):
        return f"Select and order with .sel({dim}=list(model.config.{dim}s))."
    return f"Give all of model.config.{dim}s, in that order."


def check_days(forcing: xr.DataArray, window: int) -> None:
    """Raise ValueError unless there is a window of days and none is left out."""
    if forcing.sizes["time"] < window:
        raise ValueError(
            f"forcing has {forcing.sizes['time']} days: expected at least the {window} of one "
            "window. Select a longer time."
        )
    if "time" not in forcing.coords or forcing["time"].dtype.kind in "iuf":
        return
    time = forcing["time"].to_numpy()
    if time.dtype.kind != "M":
        raise ValueError(
            f"time holds {type(time[0]).__name__}: expected datetime64. Convert other calendars "
            "with .convert_calendar('standard', use_cftime=False)."
        )
    _check_steps(time)


def _check_steps(time: NDArray[np.datetime64]) -> None:
    steps, day = np.diff(time), np.timedelta64(1, "D")
    for wrong, advice in (
        (np.isnat(steps), "Leave out what has no time."),
        (steps < 0 * day, "Sort with .sortby('time')."),
        (steps == 0 * day, "Leave out the second with .drop_duplicates('time')."),
        (steps % day != 0 * day, "Make daily values, for instance by .resample(time='1D').mean()."),
        (steps > day, "Insert the missing days with NaN, for instance by .reindex(time=...)."),
    ):
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            first, second = (str(t.astype("datetime64[s]")) for t in time[i : i + 2])
            dates = first.removesuffix("T00:00:00"), second.removesuffix("T00:00:00")
            raise ValueError(
                f"time goes from {dates[0]} to {dates[1]}: expected every day, in order. {advice}"
            )


def check_gap(max_gap: Any) -> None:
    """Raise ValueError unless a gap is a whole number of days, 0 or more."""
    if isinstance(max_gap, bool) or not isinstance(max_gap, int | np.integer) or max_gap < 0:
        raise ValueError(f"max_gap is {max_gap!r}: expected a whole number of days, 0 or more")


def check_cells(forcing: xr.DataArray, **others: xr.DataArray | None) -> None:
    """Raise ValueError unless all lie on the same cells."""
    for name, other in others.items():
        if other is None:
            continue
        for dim in ("y", "x"):
            difference = _difference(forcing, other, dim)
            if difference:
                raise ValueError(
                    f"forcing and {name} don't lie on the same cells: {dim!r} {difference}. "
                    "Select the same rows and columns of both."
                )


def _difference(one: xr.DataArray, other: xr.DataArray, dim: Hashable) -> str:
    """How two arrays differ along a dimension; empty where they don't, or can't be compared."""
    if one.sizes[dim] != other.sizes[dim]:
        return f"has {one.sizes[dim]} and {other.sizes[dim]} cells"
    if dim not in one.indexes or dim not in other.indexes:
        return ""
    here, there = one.indexes[dim], other.indexes[dim]
    if here.equals(there):
        return ""
    i = int(np.flatnonzero(here != there)[0])
    return f"number {i} is {here[i]} and {there[i]}"


def check_values(
    model: DeepProfile, forcing: xr.DataArray, auxiliary: xr.DataArray, land: xr.DataArray | None
) -> None:
    """Raise ValueError for what can't be, as far as it lies in memory.

    Args:
        model: the network, trained, whose limits forcing and features must roughly keep.
        forcing: (time, variable, y, x), must not be infinite.
        auxiliary: (feature, y, x), must not be infinite, nor missing on land.
        land: (y, x) bool; None where the user has not said what land is.
    """
    if untrained(model):
        raise ValueError(
            "the model is untrained: its limits are 0 to 1 and it has seen no batch. Load a "
            "trained one with dp.load_model(url), or train it and set its limits with "
            "model.set_limits"
        )
    _check_no_infinity(forcing, "variable")
    _check_no_infinity(auxiliary, "feature")
    if not is_lazy(forcing):
        values = np.moveaxis(forcing.to_numpy(), 1, -1).reshape(-1, forcing.sizes["variable"])
        step = max(1, len(values) // PROBE)
        _refuse("forcing", limit_problems(model, values[::step]))
    if not is_lazy(auxiliary):
        check_features(model, auxiliary.to_numpy())
    if land is None or is_lazy(land) or is_lazy(auxiliary):
        return
    missing = np.isnan(auxiliary.to_numpy()) & land.to_numpy()  # feature, y, x
    cells = int(missing.any(axis=0).sum())
    if cells:
        labels, counts = labels_of(auxiliary, "feature"), missing.sum(axis=(1, 2)).tolist()
        named = [f"{labels.title('feature', i)} in {n}" for i, n in enumerate(counts) if n]
        raise ValueError(
            f"{cells} land cells have not all auxiliary features: {', '.join(named)}. Fill them, "
            "or leave these cells out: land=land & auxiliary.notnull().all('feature')"
        )


def check_features(model: DeepProfile, auxiliary: NDArray[np.float32]) -> None:
    """Raise ValueError if features (feature, y, x) can't be in the units of the training."""
    cells = auxiliary.reshape(len(auxiliary), -1).T
    _refuse("auxiliary", feature_problems(model, cells))


def check_part(model: DeepProfile, forcing: NDArray[np.float32], land: NDArray[np.bool_]) -> None:
    """Raise ValueError if forcing of some days and cells can't be in the units of the training.

    Args:
        model: the network.
        forcing: (days, variable, y, x) in raw units.
        land: (y, x), the cells to look at.
    """
    n_days, n_variables = forcing.shape[:2]
    cells = np.flatnonzero(land)
    cells = cells[:: 1 + len(cells) * n_days // PROBE]
    values = forcing.reshape(n_days, n_variables, -1)[:, :, cells]
    _refuse("forcing", part_problems(model, np.moveaxis(values, 1, -1).reshape(-1, n_variables)))


def _refuse(what: str, problems: list[str]) -> None:
    """Raise ValueError if there are problems."""
    if problems:
        named = "; ".join(problems[:MAX_NAMED])
        more = f"; and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else ""
        raise ValueError(
            f"{what} does not fit the model's normalisation: {named}{more}. The usual cause is "
            "another unit or another order than in training."
        )


def is_lazy(array: xr.DataArray) -> bool:
    """Whether the values are yet to be computed."""
    return isinstance(array.data, da.Array)


def _check_no_infinity(array: xr.DataArray, dim: str) -> None:
    if is_lazy(array):
        return
    labels = labels_of(array, dim)
    for i, values in enumerate(np.moveaxis(array.to_numpy(), array.dims.index(dim), 0)):
        count = int(np.isinf(values).sum())
        if count:
            raise ValueError(
                f"{labels.title(dim, i)} has {count} infinite values: expected numbers, or NaN "
                "where missing, for instance by .where(np.isfinite)"
            )
