"""Triple collocation on labelled arrays, lazy where they are backed by Dask."""

from collections.abc import Hashable, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.collocation.bootstrap import BLOCK_DAYS, block_bootstrap, draw_blocks
from deepprofile.collocation.estimates import (
    MIN_SAMPLES,
    Flag,
    check_scale,
    finish,
    flag_attributes,
)
from deepprofile.collocation.fallback import median_weights
from deepprofile.collocation.statistics import N_STATISTICS, Statistics, accumulate


def triple_collocation(
    a: xr.DataArray,
    b: xr.DataArray,
    c: xr.DataArray,
    *,
    dim: str = "time",
    scale: Sequence[float] = (1.0, 1.0, 1.0),
    min_samples: int = MIN_SAMPLES,
    products: Sequence[str] | None = None,
    fallback: bool = True,
    bootstrap: int = 0,
    block_days: int = BLOCK_DAYS,
    seed: int = 0,
) -> xr.Dataset:
    """Error variances of three products of one quantity, and the weights that follow.

    σ²_x = Q_xx − Q_xy Q_xz / Q_yz over the days on which all three are finite; weights are
    ∝ scale / σ². Nothing is computed where an input is backed by Dask: every chunk of time and
    space gives its partial sums, which are added up a tree.

    The errors of the three must not be correlated with each other. An error variance is in the
    product's own units, so a product that damps the signal has a smaller one and gets more
    weight than it should: look at ``signal_to_noise`` too.

    Args:
        a: first product in m³ m⁻³, with the dimension ``dim``.
        b: second product, with the same other dimensions and the same coordinates on them.
        c: third product, likewise. Times that not all three have are left out; time stamps
            must be equal to match, such as days labelled by their 00:00.
        dim: the dimension of the samples.
        scale: factor s of each product in its weight.
        min_samples: fewest common days (at least 2).
        products: names along ``product``; by default the names of the arrays where they have
            three different ones, else "a", "b", "c".
        fallback: what the weight of a flagged cell is. True: the median weights of the valid
            cells, renormalised (∝ scale where no cell is valid); computing one cell then needs
            the weights of all. False: NaN.
        bootstrap: number of replicates of a moving-block bootstrap, 0 for none. It needs the
            whole series of a chunk of cells in memory at once.
        block_days: length of its blocks in calendar days (in steps where ``dim`` is not a time).
        seed: of its random blocks.

    Returns:
        ``weight``, ``error_variance``, ``sensitivity`` (Q_xy Q_xz / Q_yz, the signal's variance
        in that product), ``signal_to_noise`` (10 log10 of their ratio, dB), ``r_squared`` (squared
        correlation with the truth), each with the dimension ``product`` in the order given;
        ``n_samples`` and ``flag`` (CF flag values).
        ``error_variance`` and ``sensitivity`` keep their raw value in flagged cells, negative
        ones included, except with too few days, where they are NaN.
        With ``bootstrap`` also ``error_variance_std`` (NaN with too few days), ``weight_std``
        (NaN in flagged cells) and ``valid_share`` of replicates.

    Raises:
        ValueError: if dimensions or cells differ, the three have no time in common, or an
            option is out of range.
    """
    check_scale(scale)
    series = _align((a, b, c), dim)
    names = _product_names((a, b, c), products)
    sums = _accumulate(series, dim)
    result = _finish(sums, names, scale, min_samples)
    if fallback:
        result["weight"] = _fill_invalid(result["weight"], result["flag"], scale)
    if bootstrap:
        blocks = _draw_blocks(series[0], dim, bootstrap, block_days, seed)
        errors = _bootstrap(series, dim, blocks, scale, result["flag"])
        result = result.assign(errors.data_vars)
    return _describe(result, names, a.attrs.get("units"), scale, fallback)


def _product_names(arrays: Sequence[xr.DataArray], products: Sequence[str] | None) -> list[str]:
    if products is None:
        found = [str(array.name) for array in arrays if array.name is not None]
        return found if len(set(found)) == 3 else ["a", "b", "c"]
    if len(set(products)) != 3 or len(products) != 3:
        raise ValueError(f"products are {list(products)}: expected three different names")
    return [str(name) for name in products]


def _align(arrays: Sequence[xr.DataArray], dim: str) -> list[xr.DataArray]:
    """The three on common times and equal cells, ``dim`` first, in one order of dimensions."""
    for label, array in zip("abc", arrays, strict=True):
        if not isinstance(array, xr.DataArray):
            raise TypeError(
                f"array {label} is a {type(array).__name__}: expected a DataArray. Take a variable "
                "of the dataset, and of a cube its column: column(cube['soil_moisture'])."
            )
        if set(array.dims) != set(arrays[0].dims) or dim not in array.dims:
            raise ValueError(
                f"array {label} ({array.name!r}) has dimensions {array.dims}: expected those of "
                f"the first, {arrays[0].dims}, with {dim!r} among them"
            )
        if dim in array.indexes and not array.indexes[dim].is_unique:
            raise ValueError(f"array {label} ({array.name!r}) has repeated values of {dim!r}")
    space = [name for name in arrays[0].dims if name != dim]
    try:
        cells = xr.align(*arrays, join="exact", exclude=[dim], copy=False)
        common = xr.align(*cells, join="inner", exclude=space, copy=False)
    except ValueError as error:
        raise ValueError(
            f"the three arrays do not lie on the same cells or days: {error}. Put them on one "
            f"grid first; without a coordinate {dim!r} they must be equally long."
        ) from error
    if common[0].sizes[dim] == 0:
        spans = "; ".join(_span(array, dim) for array in arrays)
        raise ValueError(
            f"the three arrays have no value of {dim!r} in common ({spans}). Time stamps must be "
            "equal: label every day by its 00:00."
        )
    first = common[0].transpose(dim, *space)
    return [array.drop_vars("product", errors="ignore").transpose(*first.dims) for array in common]


def _span(array: xr.DataArray, dim: str) -> str:
    values = array[dim].values
    return f"{values[0]} to {values[-1]}" if len(values) else "empty"


def _accumulate(series: Sequence[xr.DataArray], dim: str) -> xr.DataArray:
    """Statistics over ``dim``, shape (statistic, …)."""
    template = series[0].isel({dim: 0}, drop=True)
    dims = ("statistic", *template.dims)
    if any(array.chunks is not None for array in series):
        return xr.DataArray(_lazy_sums(series), dims=dims, coords=template.coords)
    sums = accumulate(*(array.values for array in series)).sums
    return xr.DataArray(sums, dims=dims, coords=template.coords)


def _lazy_sums(series: Sequence[xr.DataArray]) -> da.Array:
    """Partial sums of every chunk, added over the chunks of time by a tree."""
    steps, statistic, *cells = range(series[0].ndim + 1)
    arguments: list[Any] = []
    for array in series:
        arguments += [array.data, (steps, *cells)]
    partial: da.Array = da.blockwise(
        _chunk_sums,
        (steps, statistic, *cells),
        *arguments,
        new_axes={statistic: N_STATISTICS},
        adjust_chunks={steps: 1},
        dtype=np.float64,
        meta=np.empty((0,) * (series[0].ndim + 1)),
    )
    total: da.Array = partial.sum(axis=0)
    return total


def _chunk_sums(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> NDArray[np.float64]:
    return accumulate(x, y, z).sums[None]


def _finish(
    sums: xr.DataArray, names: Sequence[str], scale: Sequence[float], min_samples: int
) -> xr.Dataset:
    def estimate(values: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
        found = finish(Statistics(np.moveaxis(values, -1, 0)), scale, min_samples)
        by_product = (
            found.weight,
            found.error_variance,
            found.sensitivity,
            found.signal_to_noise,
            found.r_squared,
        )
        return *(np.moveaxis(part, 0, -1) for part in by_product), found.n_samples, found.flag

    names_of = ("weight", "error_variance", "sensitivity", "signal_to_noise", "r_squared")
    parts = xr.apply_ufunc(
        estimate,
        sums,
        input_core_dims=[["statistic"]],
        output_core_dims=[["product"]] * 5 + [[], []],
        dask="parallelized",
        output_dtypes=[np.float64] * 5 + [np.int32, np.uint8],
        dask_gufunc_kwargs={"output_sizes": {"product": 3}},
    )
    variables = (*names_of, "n_samples", "flag")
    result = xr.Dataset(dict(zip(variables, parts, strict=True)))
    return result.assign_coords(product=list(names)).transpose("product", ...)


def _fill_invalid(weight: xr.DataArray, flag: xr.DataArray, scale: Sequence[float]) -> xr.DataArray:
    medians = xr.apply_ufunc(
        lambda weights, flags: median_weights(weights, flags, scale),
        weight,
        flag,
        input_core_dims=[weight.dims, flag.dims],
        output_core_dims=[["product"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True},
    )
    return weight.where(flag == Flag.VALID, medians).transpose("product", ...)


def _calendar(series: xr.DataArray, dim: str) -> NDArray[np.int64]:
    """Day of each step since the first, or its position where ``dim`` is not a time."""
    if dim not in series.indexes or series[dim].dtype.kind != "M":
        return np.arange(series.sizes[dim])
    days = series[dim].values.astype("datetime64[D]").astype(np.int64)
    return np.asarray(days - days.min())


def _draw_blocks(
    series: xr.DataArray, dim: str, replicates: int, block_days: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return draw_blocks(int(_calendar(series, dim).max()) + 1, replicates, block_days, seed)


def _bootstrap(
    series: Sequence[xr.DataArray],
    dim: str,
    blocks: tuple[NDArray[np.int64], NDArray[np.int64]],
    scale: Sequence[float],
    flag: xr.DataArray,
) -> xr.Dataset:
    day = _calendar(series[0], dim)

    def estimate(*values: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
        x, y, z = (np.moveaxis(part, -1, 0) for part in values)
        found = block_bootstrap(x, y, z, day, blocks, scale)
        by_product = (found.error_variance_std, found.weight_std)
        return *(np.moveaxis(part, 0, -1) for part in by_product), found.valid_share

    whole = [array.chunk({dim: -1}) if array.chunks else array for array in series]
    error_std, weight_std, valid_share = xr.apply_ufunc(
        estimate,
        *whole,
        input_core_dims=[[dim]] * 3,
        output_core_dims=[["product"], ["product"], []],
        dask="parallelized",
        output_dtypes=[np.float64] * 3,
        dask_gufunc_kwargs={"output_sizes": {"product": 3}},
    )
    return xr.Dataset(
        {
            "error_variance_std": error_std.where(flag != Flag.TOO_FEW_DAYS),
            "weight_std": weight_std.where(flag == Flag.VALID),
            "valid_share": valid_share,
        }
    ).transpose("product", ...)


def _describe(
    result: xr.Dataset,
    names: Sequence[str],
    units: Hashable,
    scale: Sequence[float],
    fallback: bool,
) -> xr.Dataset:
    """CF attributes of every variable."""
    squared = {"units": "m6 m-6"} if units in (None, "m3 m-3") else {"units": f"({units})2"}
    invalid = "median weights of the valid cells, renormalised" if fallback else "NaN"
    attributes: dict[str, dict[str, Any]] = {
        "weight": {
            "long_name": "weight of the product",
            "units": "1",
            "scale": [float(factor) for factor in scale],
            "comment": f"in flagged cells: {invalid}",
        },
        "error_variance": {"long_name": "variance of the product's random error", **squared},
        "sensitivity": {"long_name": "variance of the common signal in the product", **squared},
        "signal_to_noise": {"long_name": "sensitivity over error variance", "units": "dB"},
        "r_squared": {"long_name": "squared correlation with the truth", "units": "1"},
        "n_samples": {"long_name": "days with all three products", "units": "1"},
        "flag": flag_attributes(names),
        "error_variance_std": {"long_name": "standard error of the error variance", **squared},
        "weight_std": {"long_name": "standard error of the weight", "units": "1"},
        "valid_share": {"long_name": "share of valid bootstrap replicates", "units": "1"},
    }
    for name in result.data_vars:
        result[name].attrs = attributes[str(name)]
    return result
