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
from numpy.typing import NDArray

from deepprofile.model.arguments import (
    check_cells,
    check_days,
    check_features,
    check_gap,
    check_labels,
    check_limits,
    check_part,
    check_types,
    check_values,
    is_lazy,
    ordered,
)
from deepprofile.model.compatibility import features_of, variables_of
from deepprofile.model.flags import flag_attributes
from deepprofile.model.gaps import MAX_GAP
from deepprofile.model.io import fingerprint
from deepprofile.model.network import DeepProfile
from deepprofile.model.precision import check_precision
from deepprofile.model.prediction import Profiles, margins, predict_days

FORCING_DIMS = ("time", "variable", "y", "x")
AUXILIARY_DIMS = ("feature", "y", "x")
LAND_DIMS = ("y", "x")
OUTPUT_DIMS = ("time", "degree", "y", "x")
COEFFICIENT_ATTRIBUTES = {  # those of the cube of the stage predict
    "long_name": "coefficients of the soil moisture profile in powers of depth in metres",
    "units": "m3 m-3",
    "comment": "soil moisture at depth z is the sum of coefficient i times z^i; "
    "the coefficient of degree i is per metre to the power i",
}
DEGREE_ATTRIBUTES = {"long_name": "power of depth", "units": "1"}


def predict(
    model: DeepProfile,
    forcing: xr.DataArray,
    auxiliary: xr.DataArray,
    *,
    land: xr.DataArray | None = None,
    max_gap: int = MAX_GAP,
    precision: str = "float32",
) -> xr.Dataset:
    """Profiles of every cell and day of a forcing cube.

    A lazy result has about forty tasks for each chunk of the forcing in time and space, and a task
    holds a window of forcing of its chunk: good for regions and years. A globe of many years is
    work for the stage predict, which makes no graph.

    Each chunk of time reads a window before it and computes over all of it: with the 32 days of the
    cubes and a window of 360 days that is about 392 days for 32. Longer chunks are several times
    quicker: ``forcing.chunk(time=365)`` or twice that, as memory allows. Select days and cells
    of the forcing before this call rather than of its result: chunks are computed whole.

    Units are checked by the coordinate ``units`` along ``variable`` and ``feature``, where there is
    one, and by the values. Forcing in memory must roughly keep the limits of the training.
    Of lazy forcing each chunk is looked at when it is computed, and only what lies far beyond them
    is refused then: below a fifth of the lowest value of the training where all were positive,
    otherwise ten times their range beyond, which is also the bound of auxiliary features. Smaller
    mistakes are not seen: let ``units`` be there.

    Variables are named by ``forcing["variable"]``: ``forcing.variable`` is an attribute of xarray's
    own.

    Args:
        model: a trained network.
        forcing: (time, variable, y, x) in raw units, daily without a missing day, NaN where
            missing. Lazy forcing gives a lazy result with the same chunks of time and space; in
            it an infinite value counts as missing. Times are datetime64; numbers, and forcing
            without the coordinate ``time``, are taken for consecutive days.
        auxiliary: (feature, y, x) in raw units.
        land: (y, x), not zero on land; by default every cell, and then cells of the sea are
            flagged missing_features or missing_forcing, none not_land. A land cell without all
            auxiliary features is an error where both are in memory, and flagged where they are
            not or ``land`` is not given.
        max_gap: gaps of at most so many days are filled by straight lines.
        precision: of matrix products, one of ``deepprofile.model.precision.PRECISIONS``.

    Returns:
        ``coefficients(time, degree, y, x)`` in m³ m⁻³ m⁻ⁱ on all days of the forcing, NaN
        where there is no profile, and ``flag(time, y, x)``, which says why. A lazy result raises
        ValueError when it is computed if values are in other units than those of the training.

    Raises:
        TypeError: if the model is no network, or forcing, auxiliary or land no DataArray of real
            numbers.
        ValueError: if the model is untrained or its limits are no numbers; dimensions, sizes,
            names, order, units or coordinates don't fit the model or each other; days are
            missing, not in order or fewer than a window, or times are not datetime64; land cells
            lack features; a value in memory is infinite, or forcing or features in memory are far
            outside the model's limits; ``max_gap`` is no number of days; or the model's device
            has no such precision.
    """
    check_types(model, forcing=forcing, auxiliary=auxiliary, land=land)
    check_limits(model)
    check_precision(precision, model.series_minimum.device)
    forcing = ordered(forcing, FORCING_DIMS, "forcing").astype(np.float32, copy=False)
    auxiliary = ordered(auxiliary, AUXILIARY_DIMS, "auxiliary").astype(np.float32, copy=False)
    land = None if land is None else _is_land(ordered(land, LAND_DIMS, "land"))
    check_labels(forcing, "variable", variables_of(model.config))
    check_labels(auxiliary, "feature", features_of(model.config))
    check_days(forcing, model.config.window)
    check_cells(forcing, auxiliary=auxiliary, land=land)
    check_values(model, forcing, auxiliary, land)
    check_gap(max_gap)
    mask = _everywhere(forcing) if land is None else land
    model = copy.deepcopy(model).eval()  # later training must not change a lazy result
    settings = max_gap, precision
    if is_lazy(forcing):
        profiles: Profiles | _Block = _lazy_profiles(model, forcing, auxiliary, mask, *settings)
    else:
        arrays = forcing.to_numpy(), auxiliary.to_numpy(), mask.to_numpy()
        if is_lazy(auxiliary):
            check_features(model, arrays[1])
        profiles = predict_days(model, *arrays, slice(0, len(arrays[0])), *settings)
    attributes = {"model_fingerprint": fingerprint(model), "precision": precision}
    return _label(profiles, forcing, model.config.n_coefficients).assign_attrs(attributes)


class _Block(NamedTuple):
    coefficients: da.Array
    flag: da.Array


def _lazy_profiles(
    model: DeepProfile,
    forcing: xr.DataArray,
    auxiliary: xr.DataArray,
    land: xr.DataArray,
    *settings: Any,
) -> _Block:
    """Profiles block by block; ``settings`` are those that `predict_days` takes last."""
    time_chunks, _, *space_chunks = forcing.data.chunks
    space = dict(zip(("y", "x"), space_chunks, strict=True))
    unseen = is_lazy(auxiliary)
    auxiliary, land = auxiliary.chunk({"feature": -1, **space}), land.chunk(space)
    kind = model.series_minimum.device.type
    shared = delayed(model, name=f"model-{kind}-{fingerprint(model)}", traverse=False)
    before, after = margins(model.config.window, settings[0])

    def block(days: slice, rows: slice, columns: slice) -> _Block:
        first = max(0, days.start - before)
        task: Any = delayed(_predict_part, pure=True, nout=2)(
            shared,
            forcing.data[first : days.stop + after, :, rows, columns],
            auxiliary.data[:, rows, columns],
            land.data[rows, columns],
            slice(days.start - first, days.stop - first),
            unseen,
            *settings,
        )
        n_days, *cells = (part.stop - part.start for part in (days, rows, columns))
        shape = (n_days, model.config.n_coefficients, *cells)
        return _Block(
            da.from_delayed(task[0], shape, np.float32),
            da.from_delayed(task[1], (n_days, *cells), np.uint8),
        )

    return _joined(block, [_slices(chunks) for chunks in (time_chunks, *space_chunks)])


def _predict_part(
    model: DeepProfile,
    forcing: NDArray[np.float32],
    auxiliary: NDArray[np.float32],
    land: NDArray[np.bool_],
    days: slice,
    unseen: bool,
    *settings: Any,
) -> Profiles:
    """`predict_days` after a look at the values, of the features where they were lazy."""
    there = land & np.isfinite(auxiliary).all(axis=0)
    check_part(model, forcing, there)
    if unseen:
        check_features(model, np.where(there, auxiliary, np.nan))
    return predict_days(model, forcing, auxiliary, land, days, *settings)


def _joined(block: Callable[[slice, slice, slice], _Block], spans: list[list[slice]]) -> _Block:
    """The blocks of all spans of days, rows and columns as two whole arrays."""
    days, rows, columns = spans
    blocks = [[[block(d, r, c) for c in columns] for r in rows] for d in days]
    coefficients = [[[[b.coefficients for b in line] for line in plane]] for plane in blocks]
    flag = [[[b.flag for b in line] for line in plane] for plane in blocks]
    return _Block(da.block(coefficients), da.block(flag))


def _slices(chunks: Iterable[int]) -> list[slice]:
    return [slice(*bounds) for bounds in pairwise(accumulate(chunks, initial=0))]


def _label(profiles: Profiles | _Block, forcing: xr.DataArray, n_coefficients: int) -> xr.Dataset:
    kept = {
        name: coordinate
        for name, coordinate in forcing.coords.items()
        if "variable" not in coordinate.dims
    }
    degree = np.arange(n_coefficients, dtype=np.int32)
    coefficients, flag = profiles
    return xr.Dataset(
        {
            "coefficients": (OUTPUT_DIMS, coefficients, COEFFICIENT_ATTRIBUTES),
            "flag": (("time", "y", "x"), flag, flag_attributes()),
        },
        coords={**kept, "degree": ("degree", degree, DEGREE_ATTRIBUTES)},
    )


def _is_land(land: xr.DataArray) -> xr.DataArray:
    return (land != 0) & land.notnull()


def _everywhere(forcing: xr.DataArray) -> xr.DataArray:
    return xr.ones_like(forcing.isel(time=0, variable=0, drop=True), bool)
