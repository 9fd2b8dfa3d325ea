"""``dp.predict``: prediction on labelled arrays, lazy where they are lazy.

Each output block takes explicit slices of the forcing: its own days, a window before them and the
margins of gap filling. (Overlapping chunks by a whole window would rechunk the series into one
piece.) The model is one key of the graph that every task refers to, so it travels once to each
worker and never along with the tasks.
"""

import copy
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from deepprofile.model.flags import flag_attributes
from deepprofile.model.gaps import MAX_GAP
from deepprofile.model.io import fingerprint
from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import Profiles, margins, predict_days

FORCING_DIMS = ("time", "variable", "y", "x")
AUXILIARY_DIMS = ("feature", "y", "x")
OUTPUT_DIMS = ("time", "degree", "y", "x")


def predict(
    model: DeepProfile,
    forcing: xr.DataArray,
    auxiliary: xr.DataArray,
    *,
    land: xr.DataArray | None = None,
    max_gap: int = MAX_GAP,
) -> xr.Dataset:
    """Profiles of every cell and day of a forcing cube.

    Args:
        model: a trained network.
        forcing: (time, variable, y, x) in raw units, daily without a missing day. Lazy forcing
            gives a lazy result with the same chunks of time and space.
        auxiliary: (feature, y, x) in raw units.
        land: (y, x), not zero on land; by default every cell with all auxiliary features.
        max_gap: gaps of at most so many days are filled by straight lines.

    Returns:
        ``coefficients(time, degree, y, x)`` in m³ m⁻³ m⁻ⁱ on all days of the forcing, NaN
        where there is no profile, and ``flag(time, y, x)``, which says why.

    Raises:
        ValueError: if dimensions, sizes, names or coordinates don't fit the model or each other,
            or days are missing on the time axis.
    """
    forcing = _ordered(forcing, FORCING_DIMS, "forcing")
    auxiliary = _ordered(auxiliary, AUXILIARY_DIMS, "auxiliary")
    config = model.config
    _check_names(forcing, "variable", config.n_variables, config.variables)
    _check_names(auxiliary, "feature", config.n_auxiliary, config.features)
    _check_days(forcing)
    mask = _land_mask(forcing, auxiliary, land)
    model = copy.deepcopy(model).eval()  # later training must not change a lazy result
    if isinstance(forcing.data, da.Array):
        lazy = _lazy_profiles(model, forcing, auxiliary, mask, max_gap)
        return _label(lazy, forcing, model)
    arrays = forcing.to_numpy(), auxiliary.to_numpy(), mask.to_numpy()
    return _label(predict_days(model, *arrays, slice(0, len(arrays[0])), max_gap), forcing, model)


class _Block(NamedTuple):
    coefficients: da.Array
    flag: da.Array


def _lazy_profiles(
    model: DeepProfile,
    forcing: xr.DataArray,
    auxiliary: xr.DataArray,
    land: xr.DataArray,
    max_gap: int,
) -> _Block:
    time_chunks, _, *space_chunks = forcing.data.chunks
    space = dict(zip(("y", "x"), space_chunks, strict=True))
    auxiliary, land = auxiliary.chunk({"feature": -1, **space}), land.chunk(space)
    shared = delayed(model, name=f"model-{fingerprint(model)}", traverse=False)
    before, after = margins(model.config.window, max_gap)

    def block(days: slice, rows: slice, columns: slice) -> _Block:
        first = max(0, days.start - before)
        task: Any = delayed(predict_days, pure=True, nout=2)(
            shared,
            forcing.data[first : days.stop + after, :, rows, columns],
            auxiliary.data[:, rows, columns],
            land.data[rows, columns],
            slice(days.start - first, days.stop - first),
            max_gap,
        )
        n_days, *cells = (part.stop - part.start for part in (days, rows, columns))
        shape = (n_days, model.config.n_coefficients, *cells)
        return _Block(
            da.from_delayed(task[0], shape, np.float32),
            da.from_delayed(task[1], (n_days, *cells), np.uint8),
        )

    return _joined(block, [_slices(chunks) for chunks in (time_chunks, *space_chunks)])


def _joined(block: Callable[[slice, slice, slice], _Block], spans: list[list[slice]]) -> _Block:
    """The blocks of all spans of days, rows and columns as two whole arrays."""
    days, rows, columns = spans
    blocks = [[[block(d, r, c) for c in columns] for r in rows] for d in days]
    coefficients = [[[[b.coefficients for b in line] for line in plane]] for plane in blocks]
    flag = [[[b.flag for b in line] for line in plane] for plane in blocks]
    return _Block(da.block(coefficients), da.block(flag))


def _slices(chunks: Iterable[int]) -> list[slice]:
    return [slice(*bounds) for bounds in pairwise(accumulate(chunks, initial=0))]


def _label(profiles: Profiles | _Block, forcing: xr.DataArray, model: DeepProfile) -> xr.Dataset:
    kept = {
        name: coordinate
        for name, coordinate in forcing.coords.items()
        if "variable" not in coordinate.dims
    }
    units = {
        "units": "m3 m-3 m-i",
        "long_name": "coefficient of z^i, z depth in metres, i the degree",
    }
    coefficients, flag = profiles
    return xr.Dataset(
        {
            "coefficients": (OUTPUT_DIMS, coefficients, units),
            "flag": (("time", "y", "x"), flag, flag_attributes()),
        },
        coords={**kept, "degree": np.arange(model.config.n_coefficients)},
        attrs={"model_fingerprint": fingerprint(model)},
    )


def _land_mask(
    forcing: xr.DataArray, auxiliary: xr.DataArray, land: xr.DataArray | None
) -> xr.DataArray:
    parts = {"auxiliary": auxiliary} | ({} if land is None else {"land": land})
    for name, part in parts.items():
        try:
            xr.align(forcing, part, join="exact", exclude=("time", "variable", "feature"))
        except ValueError as error:
            raise ValueError(
                f"forcing and {name} don't lie on the same cells: {error}. Select the same rows "
                "and columns of both."
            ) from error
    if land is None:
        return xr.ones_like(forcing.isel(time=0, variable=0, drop=True), bool)
    return land.transpose("y", "x") != 0


def _ordered(array: xr.DataArray, dims: tuple[str, ...], name: str) -> xr.DataArray:
    if set(array.dims) != set(dims):
        raise ValueError(f"{name} has dimensions {array.dims}: expected {dims}")
    return array.transpose(*dims).astype(np.float32)


def _check_names(array: xr.DataArray, dim: str, size: int, names: tuple[str, ...]) -> None:
    found = array.sizes[dim]
    if found != size:
        raise ValueError(f"there are {found} along {dim!r}: the model expects {size}")
    if not names or dim not in array.coords:
        return
    for i, (given, expected) in enumerate(zip(array[dim].to_numpy(), names, strict=True)):
        if str(given) != expected:
            raise ValueError(
                f"{dim} number {i} is {str(given)!r}: the model was trained with {expected!r} "
                f"there. Select with .sel({dim}=list(model.config.{dim}s))."
            )


def _check_days(forcing: xr.DataArray) -> None:
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
