"""The 0-100 cm column of a product from its layers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from deepprofile.collocation.statistics import as_float
from deepprofile.profile import MAX_DEPTH, Layer


def column_weights(layers: Sequence[Layer], bottom: float = MAX_DEPTH) -> NDArray[np.float64]:
    """Share of each layer in the mean from the surface to ``bottom``.

    A layer that is the whole column is used alone. Otherwise the layers must tile the column
    without gap or overlap, and each counts by its thickness: for ERA5-Land 7, 21 and 72 %.

    Args:
        layers: the layers of one product, in any order.
        bottom: lower end of the column in metres.

    Returns:
        Shape (layers,), sum 1, in the order given.

    Raises:
        ValueError: if the layers neither hold the column nor tile it.
    """
    whole = [_same(layer.top, 0.0) and _same(layer.bottom, bottom) for layer in layers]
    if any(whole):
        return np.asarray(np.eye(len(layers))[whole.index(True)])
    edges = sorted((layer.top, layer.bottom) for layer in layers)
    tiled = bool(edges) and _same(edges[0][0], 0.0) and _same(edges[-1][1], bottom)
    if not (tiled and all(_same(upper[1], lower[0]) for upper, lower in pairwise(edges))):
        raise ValueError(
            f"layers {[layer.name for layer in layers]} do not make the column from 0 to "
            f"{bottom * 100:g} cm: expected one layer of that extent, or layers that follow each "
            "other from the surface without gap or overlap. Give all layers of one product."
        )
    return np.array([layer.thickness / bottom for layer in layers])


def column_mean(
    values: NDArray[Any], layers: Sequence[Layer], *, axis: int, bottom: float = MAX_DEPTH
) -> NDArray[Any]:
    """Thickness-weighted mean of a product's layers from the surface to ``bottom``.

    Args:
        values: soil moisture in m³ m⁻³ with the layers along ``axis``.
        layers: the layers along that axis.
        axis: the axis of the layers.
        bottom: lower end of the column in metres.

    Returns:
        The shape of ``values`` without ``axis``, in its floating type; NaN where a layer that
        counts is NaN.

    Raises:
        ValueError: if the layers do not make the column, or are not as many as the axis holds.
    """
    if values.shape[axis] != len(layers):
        raise ValueError(
            f"axis {axis} of the values holds {values.shape[axis]} layers, but {len(layers)} were "
            f"named: {[layer.name for layer in layers]}"
        )
    weights = column_weights(layers, bottom)
    values = as_float(values)
    used = np.flatnonzero(weights)
    axis %= values.ndim
    outer = int(np.prod(values.shape[:axis]))
    mean = np.empty((*values.shape[:axis], *values.shape[axis + 1 :]), values.dtype)
    _weighted_sum(
        np.ascontiguousarray(values).reshape(outer, len(layers), -1),
        used,
        weights[used].astype(values.dtype),
        mean.reshape(outer, -1),
    )
    return mean


@numba.njit(nogil=True, cache=True)
def _weighted_sum(
    values: NDArray[Any], used: NDArray[np.intp], weights: NDArray[Any], mean: NDArray[Any]
) -> None:
    """Sum of ``weights`` times the used layers of (outer, layers, inner), in their order."""
    for o in range(len(mean)):
        first = values[o, used[0]]
        for i in range(mean.shape[1]):
            mean[o, i] = first[i] * weights[0]
        for k in range(1, len(used)):
            layer = values[o, used[k]]
            for i in range(mean.shape[1]):
                mean[o, i] += layer[i] * weights[k]


def _same(depth: float, other: float) -> bool:
    """Whether two depths in metres agree within a hundredth of a millimetre."""
    return abs(depth - other) < 1e-5
