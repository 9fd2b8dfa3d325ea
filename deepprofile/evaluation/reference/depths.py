"""Depths of sensors: groups, nominal depths, layers that overlap, the column by midpoints.

All depths are in metres below the surface, positive downwards.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SURFACE_BOTTOM = 0.05
"""Lower boundary of the surface layer, the first depth group."""
COLUMN_BOTTOM = 1.0
"""Lower boundary of the column; sensors below it are left out."""
TOLERANCE = 0.02
"""Relative difference up to which a depth counts as a nominal one: 2 inches (5.08 cm) as 5 cm."""
NOMINAL_DEPTHS = (0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.45, 0.50, 0.60, 0.80, 1.0)
COLUMN_GROUP = "0-100 cm"
DEEP_GROUP = "90-100 cm"
"""Sensors at 100 cm against the mean of 90-100 cm: the value at 1 m is an extrapolated end."""
DEEP_LAYER = (0.9, 1.0)
SLACK = 1e-6
"""Metres by which equal depths may differ: they come as float32, or as centimetres over 100."""


@dataclass(frozen=True)
class DepthGroup:
    """Depths that are evaluated together.

    Attributes:
        name: such as ``"20-30 cm"``.
        lower: shallowest depth in metres.
        upper: deepest depth in metres, included.
        lower_included: whether ``lower`` itself belongs to the group.
        typical: depth at which a truth known at every depth stands for the group.
    """

    name: str
    lower: float
    upper: float
    lower_included: bool
    typical: float

    def holds(self, depth: float) -> bool:
        """Whether ``depth`` belongs to the group."""
        above = depth >= self.lower - SLACK if self.lower_included else depth > self.lower + SLACK
        return above and depth <= self.upper + SLACK


DEPTH_GROUPS = (
    DepthGroup("0-5 cm", 0.0, SURFACE_BOTTOM, True, 0.05),
    DepthGroup("5-10 cm", SURFACE_BOTTOM, 0.10, False, 0.10),
    DepthGroup("15 cm", 0.15, 0.15, True, 0.15),
    DepthGroup("20 cm", 0.20, 0.20, True, 0.20),
    DepthGroup("20-30 cm", 0.20, 0.30, False, 0.30),
    DepthGroup("40-45 cm", 0.40, 0.45, True, 0.40),
    DepthGroup("50 cm", 0.50, 0.50, True, 0.50),
    DepthGroup("60-80 cm", 0.60, 0.80, True, 0.60),
    DepthGroup("100 cm", 1.0, 1.0, True, 1.0),
)
"""The nine depth groups of Zhu et al. (2026); depths between them are not grouped."""
GROUP_NAMES = (*(group.name for group in DEPTH_GROUPS), DEEP_GROUP, COLUMN_GROUP)
"""Names of all groups in the order of tables."""


def nominal_depth(depth: float) -> float:
    """The nominal depth within 2 % of ``depth``, or ``depth`` itself where there is none.

    Depths in inches become the usual ones: 5.08 → 5, 10.16 → 10, 20.32 → 20, 50.8 → 50 and
    101.6 → 100 cm.
    """
    for nominal in NOMINAL_DEPTHS:
        if abs(depth - nominal) <= TOLERANCE * nominal + SLACK:
            return nominal
    return depth


def depth_group(top: float, bottom: float) -> str | None:
    """Name of the group of a reading, or None where no group holds it.

    A reading at a depth (``top == bottom``) belongs to the group that holds the depth. A reading
    of a layer belongs to the first group where it ends at 5 cm or above, otherwise to the group
    that holds its middle (or, with a middle above 5 cm, to the second).
    """
    depth = bottom if bottom <= SURFACE_BOTTOM + SLACK else (top + bottom) / 2
    if bottom > SURFACE_BOTTOM + SLACK:
        depth = max(depth, SURFACE_BOTTOM + 2 * SLACK)
    return next((group.name for group in DEPTH_GROUPS if group.holds(depth)), None)


def compared_bounds(group: str, top: float, bottom: float) -> tuple[float, float]:
    """Top and bottom over which estimates are compared with a reading of ``group``.

    The surface group is compared as the mean of 0-5 cm, everything else over the reading's own
    bounds: at its depth where top and bottom are equal, as a layer mean otherwise.
    """
    return (0.0, SURFACE_BOTTOM) if group == DEPTH_GROUPS[0].name else (top, bottom)


def compared_text(top: float, bottom: float) -> str:
    """What an estimate is compared as: ``"at 0.2 m"``, or ``"mean of 0 to 0.05 m"``."""
    return f"at {top:g} m" if top == bottom else f"mean of {top:g} to {bottom:g} m"


def observed_share(depths: ArrayLike, bottom: float = COLUMN_BOTTOM) -> float:
    """Share of the column from the surface to ``bottom`` that sensors at some depths observe.

    It is the part from the first to the last sensor. Between them a value is interpolated; above
    the first and below the last it is carried on, and nothing is known there.

    Args:
        depths: depths in metres, increasing, shape (sensors,), at least one.
        bottom: lower boundary of the column in metres.
    """
    z = np.asarray(depths, dtype=np.float64)
    return float((z[-1] - z[0]) / bottom)


def overlap(tops: ArrayLike, bottoms: ArrayLike, top: float, bottom: float) -> NDArray[np.float64]:
    """Thickness of each layer's part inside ``top`` to ``bottom``, in metres, shape (layers,)."""
    upper = np.maximum(np.asarray(tops, dtype=np.float64), top)
    lower = np.minimum(np.asarray(bottoms, dtype=np.float64), bottom)
    return np.asarray(np.maximum(lower - upper, 0.0))


def column_weights(depths: ArrayLike, bottom: float = COLUMN_BOTTOM) -> NDArray[np.float64]:
    """Weights of sensors in the mean of the column from the surface to ``bottom``.

    Each sensor stands for the layer between the midpoints to its neighbours; the first layer
    begins at the surface and the last ends at ``bottom`` (Zhu et al. 2026, Eq. A1).

    Args:
        depths: depths in metres, strictly increasing, none below ``bottom``, shape (sensors,).
        bottom: lower boundary of the column in metres.

    Returns:
        Shape (sensors,), summing to 1.

    Raises:
        ValueError: if the depths are empty, unsorted, repeated or below ``bottom``.
    """
    z = np.asarray(depths, dtype=np.float64)
    if z.size == 0 or np.any(np.diff(z) <= 0) or z[0] < 0 or z[-1] > bottom:
        raise ValueError(
            f"sensor depths {z.tolist()} m do not make a column: expected at least one, strictly "
            f"increasing, between 0 and {bottom} m"
        )
    midpoints = (z[1:] + z[:-1]) / 2
    return np.diff(np.concatenate(([0.0], midpoints, [bottom]))) / bottom
