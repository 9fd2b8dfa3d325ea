"""Soil texture classes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def usda_texture(clay: ArrayLike, sand: ArrayLike) -> NDArray[np.str_]:
    """Texture class of the USDA triangle (Soil Survey Manual, Handbook 18, chapter 3).

    Args:
        clay: share of clay in % of the mass of sand, silt and clay.
        sand: share of sand in %, same shape; the rest is silt.

    Returns:
        Such as ``"sandy loam"``, in the shape of the input; an empty text where a share is not
        finite, negative, or both exceed 100 %.
    """
    c, s = np.broadcast_arrays(
        np.asarray(clay, dtype=np.float64), np.asarray(sand, dtype=np.float64)
    )
    known = (c >= 0) & (s >= 0) & (c + s <= 100 + 1e-9)
    silt = 100 - c - s
    rules = {
        "sand": silt + 1.5 * c < 15,
        "loamy sand": silt + 2 * c < 30,
        "sandy loam": (c < 20) & (s > 52) | (c < 7) & (silt < 50),
        "silt": (silt >= 80) & (c < 12),
        "silt loam": (silt >= 50) & (c < 27),
        "loam": (c < 27) & (silt >= 28) & (s <= 52),
        "sandy clay loam": (c < 35) & (s > 45),
        "sandy clay": s > 45,
        "clay loam": (c < 40) & (s > 20),
        "silty clay loam": c < 40,
        "silty clay": silt >= 40,
    }
    found = np.select(list(rules.values()), list(rules), "clay")
    return np.where(known, found, "")
