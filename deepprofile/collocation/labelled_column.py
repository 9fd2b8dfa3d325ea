"""The 0-100 cm column of a product of a cube, lazy where it is backed by Dask."""

import numpy as np
import xarray as xr

from deepprofile.collocation.column import column_mean
from deepprofile.profile import Layer


def column(soil_moisture: xr.DataArray, dim: str = "layer") -> xr.DataArray:
    """Mean of the 0-100 cm column of one product, lazy where the input is backed by Dask.

    Args:
        soil_moisture: in m³ m⁻³ with the dimension ``dim`` and the coordinates ``product``,
            ``top`` and ``bottom`` (metres) along it, as cubes have them. These are read.
        dim: the dimension of the layers.

    Raises:
        ValueError: if the layers do not make the column, or belong to several products.
    """
    missing = {"product", "top", "bottom"} - set(map(str, soil_moisture.coords))
    if missing:
        raise ValueError(
            f"soil moisture lacks the coordinates {sorted(missing)} along {dim!r}, found "
            f"{sorted(map(str, soil_moisture.coords))}: expected those of a cube's layers"
        )
    bounds = (np.atleast_1d(soil_moisture[name].values) for name in ("product", "top", "bottom"))
    layers = [Layer(str(p), float(t), float(b)) for p, t, b in zip(*bounds, strict=True)]
    products = {layer.product for layer in layers}
    if len(products) > 1:
        raise ValueError(f"the layers are of several products {sorted(products)}: select one")
    mean: xr.DataArray = xr.apply_ufunc(
        lambda values: column_mean(values, layers, axis=-1),
        soil_moisture,
        input_core_dims=[[dim]],
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[np.result_type(soil_moisture.dtype, np.float32)],
        keep_attrs=True,
    )
    return mean.rename(products.pop())
