"""What ``dp.predict`` is given, checked as a whole before anything is computed."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from deepprofile.model.compatibility import (
    Labels,
    invalid_limits,
    label_problems,
    labels_of,
    limit_problems,
)
from deepprofile.model.network import DeepProfile

PROBE = 100_000
"""Cell-days of forcing in memory that are compared with the model's limits."""
MAX_NAMED = 3
"""Problems that an error names."""


def check_types(model: Any, **arrays: Any) -> None:
    """Raise TypeError unless the model is a network and every array a DataArray or None."""
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
    problems = label_problems(dim, labels_of(array, dim), expected)
    if problems:
        more = f" ({len(problems) - 1} more differ)" if len(problems) > 1 else ""
        raise ValueError(
            f"{problems[0]}{more}. Select and order with "
            f".sel({dim}=list(model.config.{dim}s)); convert to the units of "
            f"model.config.{dim}_units."
        )


def check_days(forcing: xr.DataArray, window: int) -> None:
    """Raise ValueError unless there is a window of days and none is left out."""
    if forcing.sizes["time"] < window:
        raise ValueError(
            f"forcing has {forcing.sizes['time']} days: expected at least the {window} of one "
            "window. Select a longer time."
        )
    if "time" not in forcing.coords or forcing["time"].dtype.kind != "M":
        return
    time = forcing["time"].to_numpy()
    wrong = np.flatnonzero(np.diff(time) != np.timedelta64(1, "D"))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(
            f"time goes from {np.datetime_as_string(time[i], 'D')} to "
            f"{np.datetime_as_string(time[i + 1], 'D')}: expected every day. Insert the missing "
            "days with NaN, for instance by .reindex(time=...)."
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
        try:
            xr.align(forcing, other, join="exact", exclude=("time", "variable", "feature"))
        except ValueError as error:
            raise ValueError(
                f"forcing and {name} don't lie on the same cells: {error}. Select the same rows "
                "and columns of both."
            ) from error


def check_values(
    model: DeepProfile, forcing: xr.DataArray, auxiliary: xr.DataArray, land: xr.DataArray | None
) -> None:
    """Raise ValueError for what can't be, as far as it lies in memory.

    Args:
        model: the network, whose limits the forcing must roughly keep.
        forcing: (time, variable, y, x), must not be infinite.
        auxiliary: (feature, y, x), must not be infinite, nor missing on land.
        land: (y, x) bool; None where the user has not said what land is.
    """
    _check_no_infinity(forcing, "variable")
    _check_no_infinity(auxiliary, "feature")
    if not is_lazy(forcing):
        _check_limits_of(model, forcing)
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


def _check_limits_of(model: DeepProfile, forcing: xr.DataArray) -> None:
    """Raise ValueError if forcing is far from what the model was trained with."""
    values = np.moveaxis(forcing.to_numpy(), 1, -1).reshape(-1, forcing.sizes["variable"])
    problems = limit_problems(model, values[:: max(1, len(values) // PROBE)])
    if problems:
        named = "; ".join(problems[:MAX_NAMED])
        more = f"; and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else ""
        raise ValueError(
            f"forcing does not fit the model's normalisation: {named}{more}. The usual cause is "
            "another unit or another order of variables than in training."
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
