"""Weights for cells in which triple collocation does not hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile.collocation.estimates import Flag, check_scale


def median_weights(
    weight: NDArray[Any], flag: NDArray[np.uint8], scale: Sequence[float] = (1.0, 1.0, 1.0)
) -> NDArray[np.float64]:
    """Median weight of each product over the valid cells, renormalised to sum 1.

    Args:
        weight: shape (3, …).
        flag: shape (…), 0 where a cell is valid.
        scale: factors s of the products; where no cell is valid at all the weights are ∝ s, as
            for equal error variances.

    Returns:
        Three weights.
    """
    valid = weight[:, flag == Flag.VALID]
    weights = np.median(valid, axis=1) if valid.shape[1] else check_scale(scale)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def fill_invalid(
    weight: NDArray[Any], flag: NDArray[np.uint8], scale: Sequence[float] = (1.0, 1.0, 1.0)
) -> NDArray[Any]:
    """Weights with those of every flagged cell replaced by ``median_weights``.

    Args:
        weight: shape (3, …); the valid cells among these decide the medians.
        flag: shape (…), 0 where a cell is valid.
        scale: factors s of the products, used where no cell is valid.

    Returns:
        A new array in the type of ``weight``; finite and of sum 1 in every cell.
    """
    filled = weight.copy()
    filled[:, flag != Flag.VALID] = median_weights(weight, flag, scale)[:, None]
    return filled
