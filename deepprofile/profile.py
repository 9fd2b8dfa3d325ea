"""The soil-moisture profile: a polynomial in depth and its means over layers.

θ(z) = Σ β_i z^i for i = 0 … n-1, with z in metres from the surface (0 ≤ z ≤ 1) and θ in m³ m⁻³.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

MAX_DEPTH = 1.0
"""Depth in metres to which a profile is defined."""
N_COEFFICIENTS = 10
"""Number of polynomial coefficients (degree 9)."""


@dataclass(frozen=True)
class Layer:
    """A soil layer of a product.

    Attributes:
        product: name of the product that gives the layer, such as ``"era5_land"``.
        top: upper boundary in metres below the surface.
        bottom: lower boundary in metres below the surface.

    Raises:
        ValueError: if not 0 ≤ top < bottom ≤ 1.
    """

    product: str
    top: float
    bottom: float

    def __post_init__(self) -> None:
        """Check the boundaries."""
        check_layer(self.top, self.bottom)

    @property
    def thickness(self) -> float:
        """Thickness in metres."""
        return self.bottom - self.top

    @property
    def name(self) -> str:
        """Product and boundaries in centimetres, such as ``"era5_land 7-28 cm"``."""
        return f"{self.product} {self.top * 100:g}-{self.bottom * 100:g} cm"


def check_layer(top: float, bottom: float) -> None:
    """Raise ValueError unless these are numbers with 0 ≤ top < bottom ≤ 1 (metres)."""
    if not (_is_number(top) and _is_number(bottom)):
        raise ValueError(
            f"layer from {top!r} to {bottom!r}: expected two numbers in metres, such as 0.0 and "
            "0.05"
        )
    if not 0.0 <= top < bottom <= MAX_DEPTH:
        raise ValueError(
            f"layer from {top} m to {bottom} m is not inside the profile: "
            f"expected 0 <= top < bottom <= {MAX_DEPTH} in metres.{_advice(top, bottom)}"
        )


def check_depth(depth: float) -> None:
    """Raise ValueError unless ``depth`` is one number with 0 ≤ depth ≤ 1 (metres)."""
    if not _is_number(depth):
        raise ValueError(
            f"depth {depth!r} is not a number: expected one depth in metres, such as 0.2. For "
            "several depths ask for each of them."
        )
    if not 0.0 <= depth <= MAX_DEPTH:
        raise ValueError(
            f"depth {depth} m is outside the profile: expected 0 <= depth <= {MAX_DEPTH} in "
            f"metres.{_advice(depth)}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _advice(*depths: float) -> str:
    if max(depths) > MAX_DEPTH:
        return " Depths given in centimetres must be divided by 100."
    return ""


def layer_matrix(
    layers: Sequence[tuple[float, float]], n_coefficients: int = N_COEFFICIENTS
) -> NDArray[np.float64]:
    """Matrix that turns coefficients into layer means.

    The mean of z^i over [a, b] is (b^(i+1) - a^(i+1)) / ((i+1)(b - a)).

    Args:
        layers: (top, bottom) of each layer in metres.
        n_coefficients: number of polynomial coefficients n.

    Returns:
        Shape (n, layers): :func:`combine` of coefficients and matrix are the layer means.

    Raises:
        ValueError: if a layer is no pair of numbers, lies outside 0-1 m or is empty.
    """
    bounds = np.asarray(_pairs(layers), dtype=np.float64).reshape(-1, 2)
    power = np.arange(1, n_coefficients + 1)[:, None]
    tops, bottoms = bounds[:, 0], bounds[:, 1]
    return np.asarray((bottoms**power - tops**power) / (power * (bottoms - tops)))


def _pairs(layers: Iterable[Any]) -> list[tuple[float, float]]:
    """Checked (top, bottom) of each layer."""
    try:
        pairs = [(_scalar(top), _scalar(bottom)) for top, bottom in layers]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"layers {layers!r}: expected a list with (top, bottom) in metres of each layer, such "
            "as [(0.0, 0.05), (0.05, 1.0)]"
        ) from error
    for top, bottom in pairs:
        check_layer(top, bottom)
    return [(float(top), float(bottom)) for top, bottom in pairs]


def _scalar(value: Any) -> Any:
    """The number in an array without dimensions; anything else as it is."""
    is_array = isinstance(value, np.ndarray | xr.DataArray)
    return value.item() if is_array and value.ndim == 0 else value


def depth_matrix(depths: ArrayLike, n_coefficients: int = N_COEFFICIENTS) -> NDArray[np.float64]:
    """Matrix of the powers z^i that turns coefficients into values at depths.

    Args:
        depths: depths in metres, shape (depths,).
        n_coefficients: number of polynomial coefficients n.

    Returns:
        Shape (n, depths): :func:`combine` of coefficients and matrix is θ at each depth.

    Raises:
        ValueError: if a depth lies outside 0-1 m.
    """
    z = np.atleast_1d(np.asarray(depths, dtype=np.float64))
    for depth in z:
        check_depth(float(depth))
    return z[None, :] ** np.arange(n_coefficients)[:, None]


def combine(coefficients: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[Any]:
    """Values of profiles: the sum of coefficients times powers, degree after degree.

    A matrix product chooses its order of summation by the shape of the arrays. Here the order is
    fixed, so one profile has the same value to the last bit whatever it is computed together with.

    Args:
        coefficients: shape (..., n); its floating type is that of the sums.
        matrix: shape (n, k) from :func:`layer_matrix` or :func:`depth_matrix`.

    Returns:
        Shape (..., k), in m³ m⁻³.
    """
    weights = matrix.astype(coefficients.dtype)
    values = np.empty((weights.shape[1], *coefficients.shape[:-1]), coefficients.dtype)
    term = np.empty(coefficients.shape[:-1], coefficients.dtype)
    for k, column in enumerate(weights.T):
        value = np.multiply(coefficients[..., 0], column[0], out=values[k, ...])
        for degree in range(1, len(column)):
            value += np.multiply(coefficients[..., degree], column[degree], out=term)
    return np.moveaxis(values, 0, -1)


@xr.register_dataset_accessor("profile")  # type: ignore[no-untyped-call]
class ProfileAccessor:
    """``dataset.profile``: values of a profile cube at any depth, lazily.

    The dataset must hold ``coefficients`` with a dimension ``degree``, all degrees from 0 in their
    order; every other dimension is kept as it is.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        if "coefficients" not in dataset or "degree" not in dataset["coefficients"].dims:
            raise ValueError(
                "the .profile accessor needs a variable 'coefficients' with a dimension 'degree'; "
                f"found variables {sorted(map(str, dataset.data_vars))}. Open a cube of the "
                "predict stage, or name your coefficients that way."
            )
        self._coefficients = dataset["coefficients"]
        degrees = self._coefficients["degree"].to_numpy()  # positions, where it has no coordinate
        if not np.array_equal(degrees, np.arange(self._n)):
            raise ValueError(
                f"degree is {degrees.tolist()}: expected {list(range(self._n))}, every power of "
                "depth in its order. Sort with .sortby('degree'), and select no part of them."
            )

    def layer(self, top: float, bottom: float) -> xr.DataArray:
        """Mean soil moisture of the layer from ``top`` to ``bottom`` (metres), in m³ m⁻³."""
        return self.layers([(top, bottom)]).isel(layer=0)

    def layers(self, bounds: Sequence[tuple[float, float]]) -> xr.DataArray:
        """Means of several layers, each (top, bottom) in metres, along a dimension ``layer``."""
        pairs = _pairs(bounds)
        if not pairs:
            raise ValueError("no layers: expected (top, bottom) in metres of at least one")
        mean = self._combine(layer_matrix(pairs, self._n), "layer")
        return mean.assign_coords(
            top=("layer", [top for top, _ in pairs]),
            bottom=("layer", [bottom for _, bottom in pairs]),
        ).assign_attrs(cell_methods="depth: mean", **_ATTRIBUTES)

    def at(self, depth: float) -> xr.DataArray:
        """Soil moisture at ``depth`` (metres), in m³ m⁻³."""
        depth = _scalar(depth)
        check_depth(depth)
        value = self._combine(depth_matrix(depth, self._n), "depth").isel(depth=0)
        return value.assign_coords(depth=float(depth)).assign_attrs(_ATTRIBUTES)

    @property
    def _n(self) -> int:
        return self._coefficients.sizes["degree"]

    def _combine(self, matrix: NDArray[np.float64], dimension: str) -> xr.DataArray:
        result: xr.DataArray = xr.apply_ufunc(
            combine,
            self._coefficients,
            kwargs={"matrix": matrix},
            input_core_dims=[["degree"]],
            output_core_dims=[[dimension]],
            dask="parallelized",
            dask_gufunc_kwargs={
                "output_sizes": {dimension: matrix.shape[1]},
                "allow_rechunk": True,
            },
            output_dtypes=[self._coefficients.dtype],
            keep_attrs=False,
        )
        return result.rename("soil_moisture")


_ATTRIBUTES: dict[str, Any] = {
    "units": "m3 m-3",
    "long_name": "volumetric soil moisture",
    "standard_name": "volume_fraction_of_condensed_water_in_soil",
}
